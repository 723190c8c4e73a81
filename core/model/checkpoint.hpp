// A checkpoint directory: config.json and the safetensors files beside it, mapped; their headers read and checked.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/model/config.hpp"
#include "core/model/mapped_file.hpp"
#include "core/model/safetensors.hpp"

namespace dsv4 {

class Checkpoint {
  public:
    /// directory holds config.json and, in this order of preference, model.safetensors; or
    /// model.safetensors.index.json and the shards it names; or model-*.safetensors. No tensor data is read.
    static std::shared_ptr<const Checkpoint> open(const std::string &directory);

    const Config &config() const { return config_; }
    const std::string &directory() const { return directory_; }

    /// Every tensor of every file, in file order. Those that the shard index does not name have listed == false and
    /// cannot be found by name.
    const std::vector<TensorEntry> &tensors() const { return table_.entries; }
    std::span<const int64_t> shape(const TensorEntry &e) const { return table_.shape(e); }
    const MappedFile &file(const TensorEntry &e) const { return *files_[e.file]; }
    size_t file_count() const { return files_.size(); }
    const unsigned char *data(const TensorEntry &e) const { return files_[e.file]->data() + e.begin; }

    static constexpr uint32_t kNone = UINT32_MAX;
    /// Index into tensors(), or kNone.
    uint32_t find(std::string_view name) const;

  private:
    Checkpoint() = default;
    void add_file(const std::string &name);
    void open_index();
    void add_unindexed(std::vector<std::string> names);

    std::string directory_;
    Config config_;
    std::unique_ptr<MappedFile> index_; // its text holds the keys of by_name_
    std::vector<std::unique_ptr<MappedFile>> files_;
    TensorTable table_;
    std::unordered_map<std::string_view, uint32_t> by_name_;
};

} // namespace dsv4
