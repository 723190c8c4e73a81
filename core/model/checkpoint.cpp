#include "core/model/checkpoint.hpp"

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <map>
#include <system_error>

#include "core/error.hpp"
#include "core/folder.hpp"
#include "core/model/json_reader.hpp"

namespace dsv4 {

namespace {

namespace fs = std::filesystem;

constexpr char kSingle[] = "model.safetensors";
constexpr char kIndex[] = "model.safetensors.index.json";
constexpr uint64_t kMaxIndexBytes = uint64_t{1} << 30;

/// Names of the entries of a directory that look like weights, sorted.
std::vector<std::string> list_shards(const std::string &directory) {
    std::vector<std::string> all, names;
    if (const int code = list_folder(directory, all))
        throw Error(DSV4_E_MODEL, printable(directory, 120) + ": expected a readable directory: " +
                                      std::generic_category().message(code), code);
    for (std::string &name : all)
        if (name.rfind("model", 0) == 0 && name.ends_with(".safetensors")) names.push_back(std::move(name));
    std::sort(names.begin(), names.end());
    return names;
}

bool exists(const std::string &path) {
    std::error_code error;
    return fs::exists(fs::symlink_status(path, error));
}

void require_directory(const std::string &path) {
    std::error_code error;
    const fs::file_status status = fs::status(path, error);
    if (fs::is_directory(status)) return;
    if (!error) error = std::make_error_code(std::errc::not_a_directory);
    throw Error(DSV4_E_MODEL,
                printable(path, 120) + ": expected a directory with config.json and *.safetensors: " + error.message(),
                error.value());
}

/// A shard is a file beside the index: anything else in an index is a mistake or an attack.
void require_plain_name(std::string_view shard) {
    if (shard.empty() || shard.find('/') != shard.npos || shard.find('\0') != shard.npos || shard == "." ||
        shard == "..")
        throw Error(DSV4_E_MODEL, std::string(kIndex) + ": expected the name of a file beside it, found \"" +
                                      printable(shard) + "\"");
}

} // namespace

std::shared_ptr<const Checkpoint> Checkpoint::open(const std::string &directory) {
    require_directory(directory);
    std::shared_ptr<Checkpoint> c(new Checkpoint);
    c->directory_ = directory;
    const std::string prefix = directory + "/";
    {
        const MappedFile config(prefix + "config.json");
        c->config_ = parse_config(config.text(), config.name());
    }
    if (exists(prefix + kSingle)) c->add_unindexed({kSingle});
    else if (exists(prefix + kIndex)) c->open_index();
    else c->add_unindexed(list_shards(directory));
    return c;
}

void Checkpoint::add_file(const std::string &name) {
    files_.push_back(std::make_unique<MappedFile>(directory_ + "/" + name));
    const MappedFile &file = *files_.back();
    read_safetensors_header({file.data(), static_cast<size_t>(file.size())}, file.name(),
                            static_cast<uint32_t>(files_.size() - 1), table_);
}

void Checkpoint::add_unindexed(std::vector<std::string> names) {
    if (names.empty())
        throw Error(DSV4_E_MODEL,
                    printable(directory_, 120) + ": expected model.safetensors, " + kIndex +
                        " or model-*.safetensors, found none of them",
                    ENOENT);
    for (const std::string &name : names) add_file(name);
    by_name_.reserve(table_.entries.size());
    for (uint32_t i = 0; i < table_.entries.size(); ++i) {
        const TensorEntry &e = table_.entries[i];
        const auto [at, added] = by_name_.emplace(e.name, i);
        if (!added)
            throw Error(DSV4_E_MODEL, std::string(file(e).name()) + ": " + printable(e.name) +
                                          ": expected once, found again after " +
                                          printable(file(table_.entries[at->second]).name()));
    }
}

void Checkpoint::open_index() {
    index_ = std::make_unique<MappedFile>(directory_ + "/" + kIndex);
    if (index_->size() > kMaxIndexBytes)
        throw Error(DSV4_E_MODEL, std::string(kIndex) + ": expected at most " + std::to_string(kMaxIndexBytes) +
                                      " bytes, found " + std::to_string(index_->size()));
    // Names in the order of first mention, files in the order of their names.
    std::map<std::string_view, uint32_t> shards;
    struct Wanted {
        std::string_view shard;
        uint32_t entry;
    };
    std::unordered_map<std::string_view, Wanted> wanted;
    wanted.reserve(static_cast<size_t>(index_->size() / 64));
    bool has_map = false;
    JsonReader json(index_->text(), kIndex, table_.decoded);
    json.object([&](std::string_view section) {
        if (section != "weight_map") return json.skip_value();
        has_map = true;
        json.object([&](std::string_view tensor) {
            const std::string_view shard = json.string();
            if (shards.emplace(shard, 0).second) require_plain_name(shard);
            if (!wanted.emplace(tensor, Wanted{shard, kNone}).second)
                throw Error(DSV4_E_MODEL, std::string(kIndex) + ": " + printable(tensor) +
                                              ": expected once, found twice in weight_map");
        });
    });
    json.end();
    if (!has_map)
        throw Error(DSV4_E_MODEL, std::string(kIndex) + ": weight_map: expected an object, found no such key");

    for (auto &[name, at] : shards) {
        at = static_cast<uint32_t>(files_.size());
        try {
            add_file(std::string(name));
        } catch (const Error &e) {
            if (e.native_code != ENOENT) throw;
            throw Error(DSV4_E_MODEL,
                        printable(name) + ": expected the shard that " + kIndex + " names, found no such file in " +
                            printable(directory_, 100),
                        ENOENT);
        }
    }
    by_name_.reserve(wanted.size());
    for (uint32_t i = 0; i < table_.entries.size(); ++i) {
        TensorEntry &e = table_.entries[i];
        const auto at = wanted.find(e.name);
        e.listed = at != wanted.end() && at->second.shard == file(e).name();
        if (!e.listed) continue;
        if (at->second.entry != kNone)
            throw Error(DSV4_E_MODEL, std::string(file(e).name()) + ": " + printable(e.name) +
                                          ": expected once, found twice in the header");
        at->second.entry = i;
        by_name_.emplace(e.name, i);
    }
    for (const auto &[name, want] : wanted)
        if (want.entry == kNone)
            throw Error(DSV4_E_MODEL, printable(want.shard) + ": " + printable(name) + ": expected in this shard by " +
                                          kIndex + ", found no such tensor");
}

uint32_t Checkpoint::find(std::string_view name) const {
    const auto at = by_name_.find(name);
    return at == by_name_.end() ? kNone : at->second;
}

} // namespace dsv4
