// Routed experts of made-up weights in a file, as a checkpoint would have them: back to back, aligned to nothing.
#pragma once
#include <fcntl.h>
#include <unistd.h>
#include <fstream>
#include "tests/bench/cpu/rig.hpp"

namespace dsv4::rig {

class ExpertsFile {
  public:
    /// Writes the experts of `weights` and points their tensors at the file, which goes with this object.
    ExpertsFile(std::string path, Weights &weights) : path_(std::move(path)) {
        std::ofstream out(path_, std::ios::binary);
        for (BlockWeights &b : weights.weights.layers)
            for (dsv4_tensor &t : b.tensors) {
                if (t.expert < 0) continue;
                t.path = path_.c_str();
                t.file_offset = put(out, t.data, t.bytes);
                if (t.scale_dtype) t.scale_file_offset = put(out, t.scale, t.scale_bytes);
                expert_bytes_ += t.bytes + t.scale_bytes;
            }
        if (!out.flush()) throw Error(DSV4_E_INTERNAL, path_ + ": cannot be written");
        expert_bytes_ /= uint64_t(weights.config.shape.experts) * weights.weights.layers.size();
        if (const int fd = open(path_.c_str(), O_RDONLY); fd >= 0) { // on the disk, and nowhere else
            fdatasync(fd);
            posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
            close(fd);
        }
    }
    ~ExpertsFile() { unlink(path_.c_str()); }
    ExpertsFile(const ExpertsFile &) = delete;
    ExpertsFile &operator=(const ExpertsFile &) = delete;

    const std::string &path() const { return path_; }
    uint64_t bytes() const { return bytes_; }
    uint64_t expert_bytes() const { return expert_bytes_; } // of one, scales included

  private:
    uint64_t put(std::ofstream &out, const void *data, uint64_t bytes) {
        const std::string gap(bytes_ % 7 + 1, 'x');
        out << gap;
        out.write(static_cast<const char *>(data), std::streamsize(bytes));
        bytes_ += gap.size() + bytes;
        return bytes_ - bytes;
    }
    std::string path_;
    uint64_t bytes_ = 0, expert_bytes_ = 0;
};

} // namespace dsv4::rig
