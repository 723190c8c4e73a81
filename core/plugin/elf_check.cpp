#include "core/plugin/elf_check.hpp"
#include "core/error.hpp"
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>
#if defined(__linux__) || defined(__FreeBSD__)
#define DSV4_ELF 1
#include <elf.h>
#include <link.h>
#endif

namespace dsv4 {
namespace {

[[noreturn]] void refuse(const std::string &why) { throw Error(DSV4_E_UNSUPPORTED, why); }

#ifdef DSV4_ELF

using Header = ElfW(Ehdr);
using Segment = ElfW(Phdr);
using Section = ElfW(Shdr);

constexpr int own_class = sizeof(void *) == 8 ? ELFCLASS64 : ELFCLASS32;

std::string machine_name(int machine) {
    switch (machine) {
    case EM_X86_64: return "x86_64";
    case EM_386: return "i686";
    case EM_AARCH64: return "aarch64";
    case EM_ARM: return "arm";
    case EM_PPC64: return "ppc64";
    case EM_S390: return "s390x";
    case EM_RISCV: return "riscv";
    default: return "ELF machine " + std::to_string(machine);
    }
}

constexpr int own_machine() {
#if defined(__x86_64__)
    return EM_X86_64;
#elif defined(__i386__)
    return EM_386;
#elif defined(__aarch64__)
    return EM_AARCH64;
#elif defined(__powerpc64__)
    return EM_PPC64;
#elif defined(__riscv)
    return EM_RISCV;
#else
    return EM_NONE; // not compared
#endif
}

class File {
  public:
    explicit File(const std::filesystem::path &path) : in_(path, std::ios::binary) {
        if (!in_) refuse("library cannot be opened for reading");
        size_ = std::filesystem::file_size(path);
    }
    /// What says this range exists must be right about it.
    void expect(uint64_t offset, uint64_t bytes, const char *what) const {
        if (offset > size_ || bytes > size_ - offset)
            refuse("library is truncated: " + std::to_string(size_) + " bytes, but its " + what + " reach to byte " +
                   std::to_string(offset + bytes));
    }
    void read(uint64_t offset, void *out, uint64_t bytes, const char *what) {
        expect(offset, bytes, what);
        in_.seekg(static_cast<std::streamoff>(offset));
        if (!in_.read(static_cast<char *>(out), static_cast<std::streamsize>(bytes))) refuse("library cannot be read");
    }
    uint64_t size() const { return size_; }

  private:
    std::ifstream in_;
    uint64_t size_ = 0;
};

void check_elf(File &file) {
    // e_ident, e_type and e_machine have the same place in both classes: enough to name a foreign file.
    unsigned char start[20];
    file.read(0, start, sizeof start, "ELF header");
    if (std::memcmp(start, ELFMAG, SELFMAG) != 0) refuse("library is not an ELF file");
    const bool big = start[EI_DATA] == ELFDATA2MSB;
    const int machine = big ? start[18] << 8 | start[19] : start[19] << 8 | start[18];
    if (own_machine() != EM_NONE && machine != own_machine())
        refuse("library is built for " + machine_name(machine) + ", this process is " + machine_name(own_machine()));
    const uint16_t probe = 1;
    const bool own_big = *reinterpret_cast<const unsigned char *>(&probe) == 0;
    if (start[EI_CLASS] != own_class || big != own_big)
        refuse("library is an ELF file of another word size or byte order than this process");

    Header header;
    file.read(0, &header, sizeof header, "ELF header");
    if (header.e_type != ET_DYN) refuse("library is an ELF file, but not a shared library");
    if (header.e_phnum == 0 || header.e_phnum == PN_XNUM || header.e_phentsize != sizeof(Segment))
        refuse("library has no usable program headers");
    std::vector<Segment> segments(header.e_phnum);
    file.read(header.e_phoff, segments.data(), segments.size() * sizeof(Segment), "program headers");
    for (const Segment &segment : segments) file.expect(segment.p_offset, segment.p_filesz, "segments");

    if (header.e_shnum == 0) return; // stripped of section headers: legal, the segments are what gets mapped
    if (header.e_shentsize != sizeof(Section)) refuse("library has no usable section headers");
    std::vector<Section> sections(header.e_shnum);
    file.read(header.e_shoff, sections.data(), sections.size() * sizeof(Section), "section headers");
    for (const Section &section : sections)
        if (section.sh_type != SHT_NOBITS && section.sh_type != SHT_NULL)
            file.expect(section.sh_offset, section.sh_size, "sections");
}

#endif

} // namespace

void check_shared_library(const std::filesystem::path &path) {
    std::error_code ec;
    const auto status = std::filesystem::status(path, ec);
    if (!std::filesystem::exists(status)) refuse("library " + path.filename().string() + " is not beside the manifest");
    if (!std::filesystem::is_regular_file(status)) refuse("library is not a regular file");
#ifdef DSV4_ELF
    File file(path);
    check_elf(file);
#endif
}

} // namespace dsv4
