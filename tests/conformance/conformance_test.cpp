// conformance_test PLUGIN...: the suite over plugins of this build, by name, against the reference plugin.
#include "core/error.hpp"
#include "core/plugin/registry.hpp"
#include "tests/conformance/suite/suite.hpp"
#include <cstdio>
#include <cstring>

int main(int argc, char **argv) {
    try {
        dsv4::conformance::Options options;
        std::vector<std::string> names, shapes;
        for (int i = 1; i < argc; ++i) {
            if (!std::strcmp(argv[i], "--full")) options.full = true;
            else if (!std::strncmp(argv[i], "--shape=", 8)) shapes.push_back(argv[i] + 8);
            else if (!std::strncmp(argv[i], "--check=", 8)) options.only_check = argv[i] + 8;
            else if (!std::strncmp(argv[i], "--variant=", 10)) options.variant = argv[i] + 10;
            else names.push_back(argv[i]);
        }
        if (names.empty()) {
            std::fprintf(stderr, "usage: %s [--full] [--shape=NAME]... [--check=KIND] [--variant=NAME] PLUGIN...\n",
                         argv[0]);
            return 2;
        }
        if (shapes.empty()) shapes.push_back(""); // all
        const dsv4::PluginRegistry registry({DSV4_PLUGIN_DIR}, nullptr);
        const dsv4_backend *reference = registry.select("reference").table;
        bool good = true;
        for (const std::string &name : names)
            for (const std::string &shape : shapes) {
                options.only_shape = shape;
                const auto rows = dsv4::conformance::run(registry.select(name).table, reference, options);
                std::printf("%s\n%s\n", name.c_str(), dsv4::conformance::to_table(rows).c_str());
                good &= dsv4::conformance::passed(rows);
            }
        return good ? 0 : 1;
    } catch (const std::exception &e) {
        std::fprintf(stderr, "%s\n", e.what());
        return 1;
    }
}
