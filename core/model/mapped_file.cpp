#include "core/model/mapped_file.hpp"

#include <cerrno>
#include <fcntl.h>
#include <limits>
#include <sys/mman.h>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>
#include <utility>

#include "core/error.hpp"
#include "core/model/json_reader.hpp"

namespace dsv4 {

namespace {

[[noreturn]] void fail(const std::string &path, const char *expected, int code) {
    throw Error(DSV4_E_MODEL,
                printable(path, 120) + ": " + expected + ": " + std::generic_category().message(code), code);
}

struct Descriptor {
    int fd;
    ~Descriptor() {
        if (fd >= 0) ::close(fd);
    }
};

}  // namespace

MappedFile::MappedFile(std::string path) : path_(std::move(path)) {
    // O_NONBLOCK: opening a FIFO that someone put in the directory must not hang the host.
    const Descriptor file{::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
    if (file.fd < 0) fail(path_, "expected a readable file", errno);
    struct stat info {};
    if (::fstat(file.fd, &info) != 0) fail(path_, "cannot stat", errno);
    if (!S_ISREG(info.st_mode)) fail(path_, "expected a regular file", S_ISDIR(info.st_mode) ? EISDIR : EINVAL);
    size_ = static_cast<uint64_t>(info.st_size);
    if (size_ == 0) return;
    if (size_ > std::numeric_limits<size_t>::max()) fail(path_, "too large for this process", EFBIG);
    void *mapped = ::mmap(nullptr, static_cast<size_t>(size_), PROT_READ, MAP_SHARED, file.fd, 0);
    if (mapped == MAP_FAILED) fail(path_, "cannot map", errno);
    data_ = static_cast<const unsigned char *>(mapped);
}

MappedFile::~MappedFile() {
    if (data_) ::munmap(const_cast<unsigned char *>(data_), static_cast<size_t>(size_));
}

std::string_view MappedFile::name() const {
    const size_t slash = path_.find_last_of('/');
    return slash == std::string::npos ? std::string_view(path_) : std::string_view(path_).substr(slash + 1);
}

}  // namespace dsv4
