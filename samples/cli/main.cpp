// dsv4: everything that libdsv4 does, from a shell. Results on stdout, errors on stderr; exit code 1 for bad input and for
// output that cannot be written, 2 for bad usage.
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <CLI/CLI.hpp>
#include "support.hpp"

namespace {

/// 2, and why. What nobody knows goes before what is missing, which CLI11 would rather talk about.
int usage(const CLI::App &app, const CLI::ParseError &e) {
    const auto commands = app.get_subcommands();
    const auto unknown = app.remaining(true);
    const auto kind = static_cast<CLI::ExitCodes>(e.get_exit_code());
    if (unknown.empty() || (kind != CLI::ExitCodes::RequiredError && kind != CLI::ExitCodes::ExtrasError)) {
        std::cerr << "dsv4: " << e.what();
    } else if (commands.empty()) {
        std::cerr << "dsv4: expected a command, found '" << unknown.front() << "'";
    } else {
        std::cerr << "dsv4 " << commands.front()->get_name() << ": does not know '" << unknown.front() << "'";
    }
    std::cerr << "\nRun dsv4 " << (commands.empty() ? "" : commands.front()->get_name() + " ") << "--help.\n";
    return 2;
}

/// Results that did not arrive are an error, whatever the command thought.
int flushed(int exit_code) {
    errno = 0;
    const bool good = std::cout.flush() && std::fflush(stdout) == 0 && !std::ferror(stdout);
    if (good) return exit_code;
    std::cerr << "dsv4: standard output cannot be written";
    if (errno) std::cerr << ": " << std::strerror(errno);
    std::cerr << "\n";
    return exit_code ? exit_code : 1;
}

}  // namespace

int main(int argc, char **argv) {
    CLI::App app{"Run DeepSeek-V4 from a shell. Every command takes --help."};
    app.require_subcommand(1);
    app.set_version_flag("--version", std::to_string(DSV4_VERSION_MAJOR) + "." + std::to_string(DSV4_VERSION_MINOR) + "." +
                                          std::to_string(DSV4_VERSION_PATCH));
    int exit_code = 0;
    tool::add_logits(app, exit_code);
    tool::add_perplexity(app, exit_code);
    tool::add_generate(app, exit_code);
    tool::add_plan(app, exit_code);
    tool::add_bench(app, exit_code);
    tool::add_backends(app, exit_code);
    tool::add_conformance(app, exit_code);
    tool::add_text(app, exit_code);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError &e) {
        if (e.get_exit_code()) return usage(app, e);
        app.exit(e, std::cout, std::cerr);  // --help, --version
    } catch (const std::exception &e) {
        std::cerr << "dsv4: " << e.what() << "\n";
        return 1;
    }
    return flushed(exit_code);
}
