// Experts on disk, through the C API: the same answer as from memory, a disk that breaks under them, a kernel that
// forbids io_uring.
#include <algorithm>
#include <fstream>
#include <functional>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "refusal.hpp"
#include "tests/support/checkpoint_writer.hpp"

using namespace dsv4::test;

namespace {

/// A checkpoint whose routed experts are the end of its only file.
struct ExpertsLast {
    ExpertsLast() {
        TestModel model = make_model(tiny_config());
        model.fill(7);
        const auto is_expert = [](const FileTensor &t) { return t.name.find(".experts.") != std::string::npos; };
        std::stable_partition(model.tensors.begin(), model.tensors.end(), std::not_fn(is_expert));
        for (const FileTensor &t : model.tensors)
            if (is_expert(t)) expert_bytes += t.bytes();
        save(model, folder.path());
        file = folder / "model.safetensors";
        size = std::filesystem::file_size(file);
    }
    TempDir folder;
    std::string file;
    uint64_t size = 0, expert_bytes = 0;
};

std::vector<std::string> log_lines;

RuntimePtr logging_runtime() {
    dsv4_runtime_options o;
    DSV4_INIT(o);
    const std::string plugins = DSV4_PLUGIN_DIR;
    o.plugin_dir = str(plugins);
    o.log = [](void *, int32_t, dsv4_str line) { log_lines.emplace_back(line.data, line.size); };
    return own<dsv4_runtime>([&](auto **out, auto *err) { return dsv4_runtime_create(&o, out, err); });
}

bool logged(const std::string &part) {
    return std::any_of(log_lines.begin(), log_lines.end(), [&](const auto &l) { return l.find(part) != l.npos; });
}

ModelSpec on_cpu(uint64_t budget) {
    ModelSpec spec;
    spec.backend = "cpu";
    spec.cache_tokens = 256;
    spec.expert_budget = budget;
    return spec;
}

const std::vector<int32_t> ids = {5, 6, 7, 8, 9, 10, 11, 12, 13};

dsv4_model_info info_of(const dsv4_model *model) {
    dsv4_model_info info;
    DSV4_INIT(info);
    ErrorBox error;
    check(dsv4_model_get_info(model, &info, &error), error);
    return info;
}

} // namespace

TEST_CASE("a kernel that forbids io_uring: threads read, the log says so, nothing else changes", "[disk]") {
    const ExpertsLast checkpoint;
    const pid_t child = fork(); // a filter stays: in a process of its own, and before there are threads
    REQUIRE(child >= 0);
    if (child == 0) {
        sock_filter program[] = {
            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 1 /* EPERM */),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        };
        const sock_fprog filter = {4, program};
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter)) _exit(77);
        int failed = 1;
        try {
            const auto runtime = logging_runtime();
            const auto memory = load(runtime.get(), checkpoint.folder.path(), on_cpu(0));
            const auto disk = load(runtime.get(), checkpoint.folder.path(), on_cpu(100'000));
            const bool same = evaluate(new_session(memory.get()).get(), ids).next ==
                              evaluate(new_session(disk.get()).get(), ids).next;
            failed = !same ? 2 : !logged("read by 4 threads") ? 3 : logged("read by io_uring") ? 4 : 0;
        } catch (const std::exception &) {
        }
        _exit(failed);
    }
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    REQUIRE(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) WARN("this system allows no filter of our own; not tested");
    else CHECK(WEXITSTATUS(status) == 0);
}

TEST_CASE("experts on disk answer like experts in memory, and are counted", "[disk]") {
    const ExpertsLast checkpoint;
    log_lines.clear();
    const auto runtime = logging_runtime();
    const auto memory = load(runtime.get(), checkpoint.folder.path(), on_cpu(0));
    const Logits expected = evaluate(new_session(memory.get()).get(), ids);
    const dsv4_model_info none = info_of(memory.get());
    CHECK(none.expert_hits + none.expert_ahead + none.expert_misses == 0);
    for (const uint64_t budget : {uint64_t(1), uint64_t(300'000), uint64_t(1) << 30}) {
        INFO("budget " << budget);
        const auto disk = load(runtime.get(), checkpoint.folder.path(), on_cpu(budget));
        CHECK(evaluate(new_session(disk.get()).get(), ids).next == expected.next);
        const dsv4_model_info first = info_of(disk.get());
        CHECK(first.expert_misses > 0);
        if (budget > 1) CHECK(first.expert_ahead > 0); // two of the layers route by token id
        else CHECK(first.expert_ahead == 0);           // no room for anything but the expert at work
        CHECK(first.expert_bytes_read > 0);
        CHECK(evaluate(new_session(disk.get()).get(), ids).next == expected.next);
        const dsv4_model_info second = info_of(disk.get());
        const uint64_t uses = first.expert_hits + first.expert_ahead + first.expert_misses;
        CHECK(second.expert_hits + second.expert_ahead + second.expert_misses == 2 * uses);
        if (budget == uint64_t(1) << 30) CHECK(second.expert_bytes_read == first.expert_bytes_read);
        else CHECK(second.expert_bytes_read > first.expert_bytes_read);
    }
    CHECK(logged("experts on disk are read by"));
    CHECK(logged("from memory"));
}

TEST_CASE("a file that breaks off under its experts: file and offset, the session dead, the rest alive", "[disk]") {
    const ExpertsLast checkpoint;
    std::string experts(checkpoint.expert_bytes, '\0');
    {
        std::ifstream in(checkpoint.file, std::ios::binary);
        in.seekg(std::streamoff(checkpoint.size - checkpoint.expert_bytes));
        in.read(experts.data(), std::streamsize(experts.size()));
        REQUIRE(in.good());
    }
    const auto runtime = logging_runtime();
    const auto model = load(runtime.get(), checkpoint.folder.path(), on_cpu(1));
    const Logits expected = evaluate(new_session(model.get()).get(), ids);
    const auto session = new_session(model.get()), other = new_session(model.get());

    // What is mapped and used stays: the experts begin within this last page at most.
    const uint64_t left = (checkpoint.size - checkpoint.expert_bytes + 4095) / 4096 * 4096;
    REQUIRE(truncate(checkpoint.file.c_str(), off_t(left)) == 0);
    for (const auto *s : {&session, &other}) {
        ErrorBox error;
        Logits got;
        check_refusal(try_evaluate(s->get(), ids, DSV4_EVALUATE_ALL, got, &error), DSV4_E_DEVICE, error);
        const std::string message = error.message;
        INFO(message);
        CHECK(message.find(checkpoint.file) != std::string::npos);
        CHECK(message.find("at offset " + std::to_string(left)) != std::string::npos);
        check_refusal(try_evaluate(s->get(), ids, DSV4_EVALUATE_ALL, got, &error), DSV4_E_DEVICE, error);
        CHECK(std::string(error.message).find("dead") != std::string::npos);
    }

    std::ofstream out(checkpoint.file, std::ios::binary | std::ios::in | std::ios::out);
    out.seekp(std::streamoff(checkpoint.size - checkpoint.expert_bytes));
    out.write(experts.data(), std::streamsize(experts.size()));
    REQUIRE(out.flush().good());
    ErrorBox error;
    Logits got;
    CHECK(try_evaluate(session.get(), ids, DSV4_EVALUATE_ALL, got, &error) == DSV4_E_DEVICE); // dead is dead
    CHECK(evaluate(new_session(model.get()).get(), ids).next == expected.next);
}

TEST_CASE("a cache beyond the machine's memory is refused with what it needed", "[memory]") {
    const ExpertsLast checkpoint;
    const auto runtime = logging_runtime();
    ModelSpec spec = on_cpu(0);
    spec.max_sessions = 4096;
    spec.cache_tokens = uint64_t(1) << 30;
    dsv4_model_options o;
    DSV4_INIT(o);
    o.backend = str(spec.backend);
    o.max_sessions = 4096;
    o.max_batch_tokens = 65536;
    const std::string path = checkpoint.folder.path();
    dsv4_model *model = nullptr;
    ErrorBox error;
    check_refusal(dsv4_model_load(runtime.get(), str(path), &o, &model, &error), DSV4_E_NO_MEMORY, error);
    CHECK(model == nullptr);
    CHECK(std::string(error.message).find("needs ") != std::string::npos);
    CHECK(std::string(error.message).find("are available") != std::string::npos);
    CHECK(evaluate(new_session(load(runtime.get(), path, on_cpu(0)).get()).get(), ids).rows == int32_t(ids.size()));
}
