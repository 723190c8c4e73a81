// dsv4 plan, dsv4 backends.
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <CLI/CLI.hpp>
#include "support.hpp"

namespace tool {
namespace {

void print_json(const Owned<dsv4_blob> &blob) {
    const dsv4_str json = dsv4_blob_data(blob.get());
    std::cout.write(json.data, std::streamsize(json.size)) << "\n";
}

struct PlanArguments {
    std::string path, backend, plugins;
    uint64_t context = 0;
    uint32_t sessions = 1;
    bool json = true;
};

}  // namespace

void add_plan(CLI::App &app, int &) {
    auto *command = app.add_subcommand("plan", "What of a model would go where, in bytes, from headers alone");
    auto a = std::make_shared<PlanArguments>();
    add_name(*command, "--model", a->path, "Folder with config.json and safetensors files")->required();
    add_number(*command, "--context", a->context, "Tokens of a session; the model's maximum otherwise");
    add_number(*command, "--sessions", a->sessions, "Sessions at once", 1);
    add_name(*command, "--device,--backend", a->backend, "One backend; every one found otherwise");
    add_name(*command, "--plugins", a->plugins, "Folder to look for plugins in");
    command->add_flag("--json", a->json, "JSON is what this command always prints");
    command->callback([a] {
        const auto runtime = open_runtime(a->plugins, true);
        dsv4_plan_options options;
        DSV4_INIT(options);
        options.sessions = a->sessions;
        options.context_tokens = a->context;
        options.backend = str(a->backend);
        print_json(own<dsv4_blob>([&](auto **out, auto *err) {
            return dsv4_model_plan(runtime.get(), str(a->path), &options, out, err);
        }));
    });
}

void add_backends(CLI::App &app, int &) {
    auto *command = app.add_subcommand("backends", "Plugins found, their devices, scores and capabilities");
    auto plugins = std::make_shared<std::string>();
    auto json = std::make_shared<bool>(false);
    add_name(*command, "--plugins", *plugins, "Folder to look for plugins in");
    command->add_flag("--json", *json, "JSON on stdout");
    command->callback([plugins, json] {
        const auto runtime = open_runtime(*plugins, true);
        if (*json)
            return print_json(own<dsv4_blob>(
                [&](auto **out, auto *err) { return dsv4_runtime_backends(runtime.get(), out, err); }));
        const auto found = backends_of(runtime.get());
        for (const auto &b : found["backends"]) {
            std::printf("%-12s score %-6u %s\n", b["name"].get<std::string>().c_str(), b["score"].get<uint32_t>(),
                        b["build"].get<std::string>().c_str());
            if (b.contains("why_not")) std::printf("    cannot run here: %s\n", b["why_not"].get<std::string>().c_str());
            for (const auto &d : b["device"]) {
                if (d.contains("error")) {
                    std::printf("    %s\n", d["error"].get<std::string>().c_str());
                    continue;
                }
                std::string bits;
                for (const auto &c : d["capabilities"]) bits += " " + c.get<std::string>();
                std::printf("    %s, %s, %.1f of %.1f GB free:%s\n", d["name"].get<std::string>().c_str(),
                            d["variant"].get<std::string>().c_str(), d["memory_free"].get<double>() / 1e9,
                            d["memory_total"].get<double>() / 1e9, bits.c_str());
            }
        }
        for (const auto &f : found["failures"])
            std::printf("not loaded: %s\n    %s\n", f["manifest"].get<std::string>().c_str(),
                        f["reason"].get<std::string>().c_str());
    });
}

}  // namespace tool
