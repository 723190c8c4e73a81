// Bad plugins: each gives a clear record, and the good one beside it still loads.
#include "core/error.hpp"
#include "core/plugin/cpu_features.hpp"
#include "core/plugin/registry.hpp"
#include "tests/catch.hpp"
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>
#include <unistd.h>
#include <vector>
#if defined(__linux__)
#include <elf.h>
#endif

namespace fs = std::filesystem;
using dsv4::Error;
using dsv4::PluginRegistry;
using Json = nlohmann::json;

namespace {

/// A plugin folder that cleans up after itself.
class Folder {
  public:
    Folder() {
        std::string name = (fs::temp_directory_path() / "dsv4-fault-XXXXXX").string();
        if (!mkdtemp(name.data())) throw std::runtime_error("mkdtemp");
        path_ = name;
    }
    ~Folder() {
        std::error_code ignored;
        fs::remove_all(path_, ignored);
    }
    const fs::path &path() const { return path_; }

    /// A manifest of its own making; a null value removes a key.
    void manifest(const std::string &file, const Json &changes = Json::object()) const {
        Json json = {{"manifest", 1},
                     {"name", "test"},
                     {"version", "1"},
                     {"library", "good.so"},
                     {"abi_min", 1},
                     {"abi_max", 1},
                     {"arch", std::string(dsv4::host_arch())},
                     {"cpu_features", Json::array()}};
        json.update(changes);
        write(file, json.dump());
    }
    void write(const std::string &file, const std::string &text) const {
        std::ofstream(path_ / file, std::ios::binary) << text;
    }
    std::string read(const std::string &file) const {
        std::ifstream in(path_ / file, std::ios::binary);
        return {std::istreambuf_iterator<char>(in), {}};
    }
    /// A copy: another file is another library to the dynamic loader, so tests do not share state.
    void module(const std::string &kind, const std::string &as = "") const {
        fs::copy_file(fs::path(MODULES) / (kind + ".so"), path_ / (as.empty() ? kind + ".so" : as));
    }

  private:
    fs::path path_;
};

struct Log {
    std::mutex mutex;
    std::vector<std::string> lines;
    dsv4::LogSink sink() {
        return [this](int32_t, std::string_view line) {
            const std::lock_guard lock(mutex);
            lines.emplace_back(line);
        };
    }
    size_t count(const std::string &line) {
        const std::lock_guard lock(mutex);
        return static_cast<size_t>(std::count(lines.begin(), lines.end(), line));
    }
};

/// A folder with a good plugin "good" and a bad one; returns why the bad one was refused.
std::string why_refused(const Folder &folder) {
    folder.module("good", "neighbour.so");
    folder.manifest("dsv4-zzz.json", {{"library", "neighbour.so"}}); // sorted last: loads after the failure
    const PluginRegistry registry({folder.path()}, nullptr);
    REQUIRE(registry.backends().size() == 1);
    CHECK(fs::path(registry.backends()[0].manifest).filename() == "dsv4-zzz.json");
    CHECK(registry.backends()[0].score == 7);
    REQUIRE(registry.failures().size() == 1);
    CHECK(fs::path(registry.failures()[0].manifest).filename() == "dsv4-bad.json");
    return registry.failures()[0].reason;
}

/// The same, with a module of this kind and a manifest changed like this.
std::string why_refused(const std::string &kind, const Json &changes = Json::object()) {
    const Folder folder;
    folder.module(kind, "bad.so");
    Json all = {{"library", "bad.so"}};
    all.update(changes);
    folder.manifest("dsv4-bad.json", all);
    return why_refused(folder);
}

bool has(const std::string &text, const std::string &part) {
    INFO(text);
    INFO(part);
    const bool found = text.find(part) != std::string::npos;
    CHECK(found);
    return found;
}

} // namespace

TEST_CASE("a good plugin loads, is probed, logs and is shut down") {
    const Folder folder;
    folder.module("good");
    folder.manifest("dsv4-test.json");
    folder.write("dsv4-readme.txt", "not a manifest");
    folder.write("other.json", "not one of ours");
    Log log;
    {
        const PluginRegistry registry({folder.path()}, log.sink());
        REQUIRE(registry.backends().size() == 1);
        CHECK(registry.failures().empty());
        const dsv4::LoadedBackend &b = registry.backends()[0];
        CHECK(b.name == "test");
        CHECK(b.build == "for tests");
        CHECK(b.devices == 1);
        CHECK(b.score == 7);
        CHECK(b.why_not.empty());
        CHECK(&registry.select("") == &b);
        CHECK(&registry.select("test") == &b);
        CHECK(log.count("shutdown") == 0);
    }
    CHECK(log.count("entry") == 1);
    CHECK(log.count("shutdown") == 1);
}

TEST_CASE("what a plugin may be wrong in, before anything of it runs") {
    has(why_refused("good", {{"abi_min", 2}, {"abi_max", 9}}), "speaks plugin ABI 2 to 9, this library 1");
    has(why_refused("good", {{"arch", "vax"}}), "is for vax");
    has(why_refused("good", {{"cpu_features", {"teleport"}}}), "does not know of: teleport");
    has(why_refused("good", {{"library", "../good.so"}}), "not a path");
    has(why_refused("good", {{"library", "missing.so"}}), "missing.so is not beside the manifest");
    has(why_refused("good", {{"manifest", 2}}), "format 2");
}

TEST_CASE("what a plugin may be wrong in once opened") {
    has(why_refused("no_symbol"), "does not export dsv4_backend_entry");
    has(why_refused("entry_fails"), "the licence server did not answer");
    has(why_refused("no_table"), "no table");
    has(why_refused("small_table"), "struct_size");
    has(why_refused("other_abi"), "table says ABI 99");
    has(why_refused("other_name"), "somebody-else");
    has(why_refused("null_function"), "no function device_query");
    has(why_refused("unresolved"), "dsv4_test_function_that_nobody_has"); // at load, not in the middle of a step
}

TEST_CASE("files that are not manifests or libraries") {
    const auto bad_manifest = [](const std::string &text) {
        const Folder folder;
        folder.write("dsv4-bad.json", text);
        return why_refused(folder);
    };
    has(bad_manifest("this is not JSON"), "not JSON");
    has(bad_manifest(""), "not JSON");
    has(bad_manifest("{}"), "lacks");
    {
        const Folder folder;
        fs::create_directory(folder.path() / "dsv4-bad.json");
        has(why_refused(folder), "not a regular file");
    }
    const auto bad_library = [](const std::string &bytes) {
        const Folder folder;
        folder.manifest("dsv4-bad.json", {{"library", "bad.so"}});
        folder.write("bad.so", bytes);
        return why_refused(folder);
    };
    has(bad_library(""), "truncated: 0 bytes");
    has(bad_library("#!/bin/sh\necho not a library, but long enough\n"), "not an ELF file");
    {
        const Folder folder;
        folder.manifest("dsv4-bad.json", {{"library", "bad.so"}});
        fs::create_directory(folder.path() / "bad.so");
        has(why_refused(folder), "not a regular file");
    }
}

#if defined(__linux__)
TEST_CASE("libraries of other machines and cut-off ones") {
    const Folder source;
    source.module("good");
    const std::string whole = source.read("good.so");
    REQUIRE(whole.size() > 1000);
    const auto refusal = [](const std::string &bytes) {
        const Folder folder;
        folder.manifest("dsv4-bad.json", {{"library", "bad.so"}});
        folder.write("bad.so", bytes);
        return why_refused(folder);
    };
    const auto patched = [&](size_t at, char value) {
        std::string bytes = whole;
        bytes[at] = value;
        return refusal(bytes);
    };
    std::string s390 = whole;
    s390[EI_DATA] = ELFDATA2MSB;
    s390[18] = 0, s390[19] = EM_S390;
    has(refusal(s390), "built for s390x");
    has(patched(18, EM_MIPS), "ELF machine 8");
    has(patched(EI_CLASS, sizeof(void *) == 8 ? ELFCLASS32 : ELFCLASS64), "word size");
    has(patched(16, ET_REL), "not a shared library");

    // Cut anywhere, dlopen is not reached: some of these would end the process with SIGBUS.
    for (const size_t size : {size_t(3), size_t(19), size_t(40), size_t(64), size_t(100), whole.size() / 4,
                              whole.size() / 2, whole.size() - 1})
        has(refusal(whole.substr(0, size)), "truncated");
    // Headers that point beyond every end, with sums that overflow.
    std::string wild = whole;
    const uint64_t offset = ~0ull - 8;
    wild.replace(offsetof(Elf64_Ehdr, e_phoff), 8, reinterpret_cast<const char *>(&offset), 8);
    has(refusal(wild), "truncated");
}
#endif

TEST_CASE("two of one name: the first that loads wins") {
    const Folder first, second;
    first.module("good");
    first.manifest("dsv4-a.json");
    first.module("good", "again.so");
    first.manifest("dsv4-b.json", {{"library", "again.so"}});
    second.module("good");
    second.manifest("dsv4-a.json");
    const PluginRegistry registry({first.path(), second.path()}, nullptr);
    REQUIRE(registry.backends().size() == 1);
    CHECK(registry.backends()[0].manifest == (first.path() / "dsv4-a.json").string());
    REQUIRE(registry.failures().size() == 2);
    for (const auto &failure : registry.failures()) has(failure.reason, "already loaded from " + first.path().string());

    // One that fails does not block the name.
    const Folder third;
    third.module("entry_fails", "a.so");
    third.manifest("dsv4-a.json", {{"library", "a.so"}});
    third.module("good", "b.so");
    third.manifest("dsv4-b.json", {{"library", "b.so"}});
    const PluginRegistry other({third.path()}, nullptr);
    REQUIRE(other.backends().size() == 1);
    CHECK(other.failures().size() == 1);
}

TEST_CASE("a backend that cannot run here is listed with its reason, and not chosen") {
    for (const auto &[kind, reason] : {std::pair<std::string, std::string>{"cannot_run", "no such accelerator here"},
                                       {"probe_fails", "the driver is older than 5.0"}}) {
        const Folder folder;
        folder.module(kind);
        folder.manifest("dsv4-test.json", {{"library", kind + ".so"}});
        const PluginRegistry registry({folder.path()}, nullptr);
        REQUIRE(registry.backends().size() == 1);
        CHECK(registry.backends()[0].score == 0);
        CHECK(registry.backends()[0].why_not == reason);
        for (const char *name : {"", "test"}) {
            try {
                registry.select(name);
                FAIL("selected a backend that cannot run");
            } catch (const Error &e) {
                has(e.what(), reason);
            }
        }
    }
}

TEST_CASE("asking for what is not there says what is, and what failed") {
    const Folder folder;
    folder.module("good");
    folder.manifest("dsv4-test.json");
    folder.write("dsv4-cuda.json", "{}");
    const PluginRegistry registry({folder.path(), "/no/such/folder", "relative/folder", ""}, nullptr);
    try {
        registry.select("cuda");
        FAIL("selected a backend that is not there");
    } catch (const Error &e) {
        CHECK(e.status == DSV4_E_UNSUPPORTED);
        has(e.what(), "no backend \"cuda\"");
        has(e.what(), "loaded: test");
        has(e.what(), "dsv4-cuda.json: manifest lacks");
        has(e.what(), "/no/such/folder");
        has(e.what(), "relative/folder: not an absolute path");
    }
    CHECK_THROWS_AS(PluginRegistry({}, nullptr).select(""), Error);
}

TEST_CASE("shutdown comes when the last registry lets go, and each sees the log while it holds the plugin") {
    const Folder folder;
    folder.module("good");
    folder.manifest("dsv4-test.json");
    Log a, b;
    auto one = std::make_unique<PluginRegistry>(std::vector<fs::path>{folder.path()}, a.sink());
    auto two = std::make_unique<PluginRegistry>(std::vector<fs::path>{folder.path()}, b.sink());
    CHECK(one->backends()[0].table == two->backends()[0].table);
    one.reset();
    CHECK(a.count("shutdown") == 0);
    CHECK(b.count("shutdown") == 0);
    two.reset();
    CHECK(a.count("shutdown") == 0); // it had let go: no line may reach it any more
    CHECK(b.count("shutdown") == 1);
    // And again from the start.
    Log c;
    { const PluginRegistry three({folder.path()}, c.sink()); }
    CHECK(c.count("entry") == 1);
    CHECK(c.count("shutdown") == 1);
}

TEST_CASE("registries come and go on several threads") {
    const Folder folder;
    folder.module("good");
    folder.manifest("dsv4-test.json");
    std::vector<std::thread> threads;
    std::atomic<int> loaded{0};
    for (int t = 0; t < 4; ++t)
        threads.emplace_back([&] {
            for (int i = 0; i < 25; ++i) {
                Log log;
                const PluginRegistry registry({folder.path()}, log.sink());
                loaded += static_cast<int>(registry.backends().size());
            }
        });
    for (std::thread &t : threads) t.join();
    CHECK(loaded == 100);
}

TEST_CASE("where plugins are looked for") {
    using dsv4::plugin_search_path;
    CHECK(plugin_search_path("/opt/mine", "/a:/b") == std::vector<fs::path>{"/opt/mine"});
    const fs::path own = dsv4::library_directory();
    REQUIRE(own.is_absolute());
    CHECK(fs::exists(own));
    const fs::path beside = own / "dsv4" / "plugins";
    CHECK(plugin_search_path("", "") == std::vector<fs::path>{beside});
    CHECK(plugin_search_path("", "/a::rel:/b:/a:") == std::vector<fs::path>{beside, "/a", "rel", "/b"});
}

TEST_CASE("CPU features") {
    CHECK(dsv4::missing_cpu_features({}).empty());
    has(dsv4::missing_cpu_features({"teleport"}), "teleport");
#if defined(__x86_64__)
    // The compiler's own view of this machine must agree.
    __builtin_cpu_init();
    CHECK(dsv4::missing_cpu_features({"avx2"}).empty() == bool(__builtin_cpu_supports("avx2")));
    CHECK(dsv4::missing_cpu_features({"avx512f"}).empty() == bool(__builtin_cpu_supports("avx512f")));
    CHECK(dsv4::missing_cpu_features({"avx512bw"}).empty() == bool(__builtin_cpu_supports("avx512bw")));
    CHECK(dsv4::missing_cpu_features({"fma"}).empty() == bool(__builtin_cpu_supports("fma")));
#endif
}
