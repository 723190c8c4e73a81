// Checkpoints for tests, in the published layout: names, types, shapes and scales follow from a config, as in a real
// one; bytes are pseudo-random, or absent (sparse files of true size).
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace dsv4::test {

/// A fresh directory, removed with everything in it.
class TempDir {
  public:
    TempDir();
    ~TempDir();
    TempDir(const TempDir &) = delete;
    TempDir &operator=(const TempDir &) = delete;
    std::string path() const { return path_.string(); }
    std::string operator/(const std::string &name) const { return (path_ / name).string(); }

  private:
    std::filesystem::path path_;
};

struct FileTensor {
    std::string name, dtype;
    std::vector<int64_t> shape;
    std::vector<uint8_t> data; // empty in sparse checkpoints

    uint64_t bytes() const;
};

struct TestModel {
    nlohmann::ordered_json config;
    std::vector<FileTensor> tensors;

    FileTensor &at(const std::string &name);
    void erase(const std::string &name);
    void fill(uint64_t seed); // random bytes, sane scales and expert tables
};

/// Six layers (two window-only, then CSA and HCA in turn; two hash layers), 8 experts, one MTP block. expert_dtype is
/// "fp4", "fp8" or "bf16"; with "bf16" nothing is quantised.
nlohmann::ordered_json tiny_config(const std::string &expert_dtype = "fp4");
/// The true sizes of the published models.
nlohmann::ordered_json flash_config();
nlohmann::ordered_json pro_config();

/// Tensors that a config asks for, without data.
TestModel make_model(const nlohmann::ordered_json &config);

struct SaveOptions {
    std::string prefix;                 // "model."
    std::string scale_suffix = "scale"; // "weight_scale_inv"
    size_t shards = 0;                  // 0: model.safetensors; else so many files
    bool index = true;                  // with shards: model.safetensors.index.json
    bool sparse = false;                // headers only, files of the right length
};
void save(const TestModel &model, const std::string &directory, const SaveOptions &options = {});

/// {"name": {"dtype": .., "shape": .., "data_offsets": ..}, ..} of tensors laid end to end.
std::string header_of(const std::vector<FileTensor> &tensors);
/// 8 bytes of length, the header, the data.
std::string container(const std::string &header, const std::string &data);
void write_file(const std::string &path, const std::string &bytes);

} // namespace dsv4::test
