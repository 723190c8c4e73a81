// dsv4: everything that libdsv4 does, from a shell. Results on stdout, errors on stderr; exit code 1 for bad input, 2
// for bad usage.
#include <iostream>
#include <CLI/CLI.hpp>
#include "support.hpp"

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
        const int code = app.exit(e, std::cout, std::cerr);
        return code == 0 ? 0 : 2;
    } catch (const std::exception &e) {
        std::cerr << "dsv4: " << e.what() << "\n";
        return 1;
    }
    return exit_code;
}
