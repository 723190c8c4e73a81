// A file mapped read-only, for as long as the object lives.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace dsv4 {

/// Never copies. Whoever truncates the file while it is mapped gets a SIGBUS into this process: that is what mmap is,
/// and why a checkpoint should be replaced by rename, not rewritten in place.
class MappedFile {
  public:
    /// Throws Error (native_code = errno) when path is not a readable regular file. An empty file maps to size() 0.
    explicit MappedFile(std::string path);
    ~MappedFile();
    MappedFile(const MappedFile &) = delete;
    MappedFile &operator=(const MappedFile &) = delete;

    const std::string &path() const { return path_; }
    /// The last component of the path: what messages call the file.
    std::string_view name() const;
    const unsigned char *data() const { return data_; }
    uint64_t size() const { return size_; }
    std::string_view text() const { return {reinterpret_cast<const char *>(data_), static_cast<size_t>(size_)}; }

  private:
    std::string path_;
    const unsigned char *data_ = nullptr;
    uint64_t size_ = 0;
};

}  // namespace dsv4
