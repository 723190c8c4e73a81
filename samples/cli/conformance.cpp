// dsv4 conformance: the suite over one plugin. The only command that drives plugins itself, below dsv4.h.
#include "core/plugin/registry.hpp"
#include "support.hpp"
#include "tests/conformance/suite/suite.hpp"
#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

namespace tool {
namespace {

/// Where the library looks is where this looks: the folders of every manifest it found, good or bad.
std::vector<std::filesystem::path> plugin_folders(const std::string &plugins) {
    const auto runtime = open_runtime(plugins, true);
    expect_backends(runtime.get(), plugins);
    const auto found = backends_of(runtime.get());
    std::vector<std::filesystem::path> folders;
    std::set<std::filesystem::path> seen;
    for (const char *list : {"backends", "failures"})
        for (const auto &plugin : found[list]) {
            const std::filesystem::path manifest = plugin["manifest"].get<std::string>();
            // A folder that could not be searched is among the failures too.
            if (manifest.extension() != ".json" || !manifest.is_absolute()) continue;
            if (seen.insert(manifest.parent_path()).second) folders.push_back(manifest.parent_path());
        }
    return folders;
}

struct ConformanceArguments {
    std::string backend, plugins;
    dsv4::conformance::Options options;
    bool json = false;
};

} // namespace

void add_conformance(CLI::App &app, int &exit_code) {
    auto *command = app.add_subcommand("conformance", "Every operator of a backend against the reference");
    auto a = std::make_shared<ConformanceArguments>();
    add_name(*command, "--backend", a->backend, "The plugin to check")->required();
    add_name(*command, "--plugins", a->plugins, "Folder to look for plugins in; the reference must be there too");
    add_number(*command, "--device", a->options.device, "Which of its devices");
    add_number(*command, "--threads", a->options.threads, "CPU backends: 0 is one per core");
    add_name(*command, "--variant", a->options.variant, "Instruction set to force");
    command->add_option("--shape", a->options.only_shape,
                        "This made-up model only: small, odd-a, odd-b, odd-c, flash, pro")
        ->check(CLI::IsMember({"small", "odd-a", "odd-b", "odd-c", "flash", "pro"}));
    add_number(*command, "--seed", a->options.seed, "Of weights and inputs");
    command->add_flag("--full", a->options.full, "The true widths of Flash and Pro too: minutes, and about 3 GB");
    command->add_flag("--json", a->json, "JSON on stdout");
    command->callback([a, &exit_code] {
        const dsv4::PluginRegistry registry(plugin_folders(a->plugins), [](int32_t level, std::string_view line) {
            if (level <= 1) std::fprintf(stderr, "%.*s\n", static_cast<int>(line.size()), line.data());
        });
        // Chosen before the run, so that a wrong name is an error at once.
        const dsv4_backend *candidate = registry.select(a->backend).table,
                           *reference = registry.select("reference").table;
        if (!a->options.only_shape.empty() && (a->options.only_shape == "flash" || a->options.only_shape == "pro"))
            a->options.full = true;
        a->options.on_row = [](const dsv4::conformance::Row &row) {
            if (row.verdict == dsv4::conformance::Verdict::fail)
                std::fprintf(stderr, "FAIL %s %s, %s, %s: %s\n", row.check.c_str(), row.op.c_str(), row.shape.c_str(),
                             row.numerics.c_str(), row.note.c_str());
        };
        const auto rows = dsv4::conformance::run(candidate, reference, a->options);
        std::printf("%s",
                    (a->json ? dsv4::conformance::to_json(rows) + "\n" : dsv4::conformance::to_table(rows)).c_str());
        exit_code = dsv4::conformance::passed(rows) ? 0 : 1;
    });
}

} // namespace tool
