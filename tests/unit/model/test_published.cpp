// The checkpoints beside the repository, where they are.
#include <filesystem>
#include <iostream>

#include "core/model/plan.hpp"
#include "tests/catch.hpp"

using namespace dsv4;

TEST_CASE("the shared vector checkpoints map completely") {
    const std::string root = DSV4_SOURCE_DIR "/../shared/vectors";
    for (const char *name : {"tiny-flash", "tiny-pro", "tiny-base", "tiny-bf16"}) {
        const std::string directory = root + "/" + name;
        if (!std::filesystem::exists(directory)) {
            std::cerr << "SKIPPED: " << directory << " is not here; generated checkpoints were tested\n";
            continue;
        }
        INFO(directory);
        const ModelWeights w = map_weights(Checkpoint::open(directory));
        CHECK(w.used_tensors == w.total_tensors);
        CHECK(w.used_bytes == w.total_bytes);
        CHECK(w.unused.empty());
        CHECK(w.degradations.empty());
        CHECK(w.mtp.size() == 1);
        check_scales(w);
        CHECK(make_plan(w, {}).used_bytes == w.total_bytes);
    }
}
