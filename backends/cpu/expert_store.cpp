#include "backends/cpu/expert_store.hpp"
#include <algorithm>
#include <chrono>
#include <cstdio>
#include "backends/cpu/machine.hpp"

namespace dsv4::cpu {

namespace {

constexpr uint64_t progress_ns = 10'000'000'000; // between two lines of the log

uint64_t clock_ns() {
    return uint64_t(std::chrono::duration_cast<std::chrono::nanoseconds>(
                        std::chrono::steady_clock::now().time_since_epoch()).count());
}

uint64_t span(const FilePiece &p) {
    return p.file < 0 ? 0 : DiskFile::up(p.offset + p.bytes) - DiskFile::down(p.offset);
}

std::string megabytes(uint64_t bytes) { return std::to_string(bytes / 1000000) + " MB"; }

} // namespace

ExpertStore::ExpertStore(uint64_t budget, Log log, DiskMethod method)
    : log_(std::move(log)), method_(method), budget_(budget ? budget : UINT64_MAX) {
    const uint64_t available = available_memory();
    if (!available || budget_ <= available - available / 8) return;
    budget_ = available - available / 8;
    if (budget)
        log_(1, "cpu: experts on disk: the budget of " + megabytes(budget) + " is cut to " + megabytes(budget_) + ": " +
                    megabytes(available) + " of memory are available");
}

// The reader first: what it still reads goes into memory that the experts own.
ExpertStore::~ExpertStore() { reader_.reset(); }

int32_t ExpertStore::file(const std::string &path) {
    for (size_t i = 0; i < files_.size(); ++i)
        if (files_[i]->path == path) return int32_t(i);
    if (!reader_) open_reader();
    files_.push_back(std::make_unique<DiskFile>(path));
    if (files_.back()->direct < 0)
        log_(1, "cpu: " + path + ": no O_DIRECT here; experts are read through the page cache");
    return int32_t(files_.size() - 1);
}

void ExpertStore::open_reader() {
    std::string why_not;
    reader_ = open_disk_reader(method_, why_not);
    if (!reader_) throw Error(DSV4_E_UNSUPPORTED, "cpu: experts on disk: " + why_not);
    if (!why_not.empty()) why_not = " (" + why_not + ")";
    log_(2, std::string("cpu: experts on disk are read by ") + reader_->name() + why_not);
}

int64_t ExpertStore::add(const FilePiece (&parts)[pieces]) {
    auto e = std::make_unique<Expert>();
    for (int i = 0; i < pieces; ++i) {
        e->part[i] = parts[i];
        e->at[i] = e->bytes;
        e->bytes += span(parts[i]);
        e->weight_bytes += parts[i].file < 0 ? 0 : parts[i].bytes;
    }
    experts_.push_back(std::move(e));
    return int64_t(experts_.size()) - 1;
}

void ExpertStore::remove(int64_t expert) {
    std::unique_ptr<Expert> &e = experts_[size_t(expert)];
    if (e->state == State::READING) {
        try {
            reader_->wait(e->request);
        } catch (const std::exception &) {
            return; // the ring is broken: the memory and the request stay until the reader has gone
        }
    }
    drop(*e);
    e.reset();
}

void ExpertStore::drop(Expert &e) {
    if (e.state == State::ABSENT) return;
    ages_.erase(e.age);
    taken_ -= e.bytes;
    e.memory = Pages();
    e.state = State::ABSENT;
}

/// What has arrived becomes usable; what could not be read becomes absent again, the reason stays in its request.
void ExpertStore::finish(Expert &e) {
    if (e.state != State::READING || !e.request.done()) return;
    if (e.request.failure.empty()) e.state = State::HELD;
    else drop(e);
}

int64_t ExpertStore::victim(Giving giving) {
    int64_t expected = -1, listed = -1;
    for (auto at = ages_.begin(); at != ages_.end();) {
        const int64_t id = *at++;
        Expert &e = *experts_[size_t(id)];
        finish(e);
        if (e.state != State::HELD) continue;
        if (e.listed == round_) listed = listed < 0 ? id : listed;
        else if (e.expected) expected = expected < 0 ? id : expected;
        else return id;
    }
    if (giving != Giving::UNLISTED && expected >= 0) return expected;
    return giving == Giving::LISTED ? listed : -1;
}

/// Starts reading an absent expert. False: not without giving up more than `giving` allows. With LISTED it always
/// starts, beyond the budget if need be: the least that computes is one expert.
bool ExpertStore::admit(int64_t id, Origin origin, Giving giving) {
    Expert &e = *experts_[size_t(id)];
    Pages memory;
    while (e.bytes > budget_ || taken_ > budget_ - e.bytes) {
        const int64_t other = victim(giving);
        if (other >= 0) {
            Expert &given = *experts_[size_t(other)];
            if (given.bytes == e.bytes) memory = std::move(given.memory); // its pages need no clearing by the kernel
            drop(given);
            continue;
        }
        if (giving != Giving::LISTED) return false;
        const auto reading = std::find_if(ages_.begin(), ages_.end(), [&](int64_t i) {
            return experts_[size_t(i)]->state == State::READING;
        });
        if (reading == ages_.end()) break;
        reader_->wait(experts_[size_t(*reading)]->request);
    }
    if (memory.size() != e.bytes) {
        memory = Pages(); // before, not after
        memory = Pages(e.bytes, "an expert read from disk");
    }
    e.age = ages_.insert(ages_.end(), id);
    e.memory = std::move(memory);
    e.state = State::READING;
    e.origin = origin;
    taken_ += e.bytes;
    e.request = DiskRequest();
    e.request.failure = "cpu: out of memory"; // for the case that not all pieces get into the queue
    for (int p = 0; p < pieces; ++p)
        if (const FilePiece &part = e.part[p]; part.file >= 0)
            reader_->read(*files_[size_t(part.file)], part.offset, part.bytes, e.memory.data() + e.at[p], e.request);
    e.request.failure.clear();
    bytes_read_.fetch_add(e.weight_bytes, std::memory_order_relaxed);
    return true;
}

void ExpertStore::expect(std::vector<int64_t> experts) {
    for (const int64_t id : expected_)
        if (experts_[size_t(id)]) experts_[size_t(id)]->expected = false;
    expected_ = std::move(experts);
    next_expected_ = 0;
    for (const int64_t id : expected_) experts_[size_t(id)]->expected = true;
    ++round_; // nothing of an earlier step is in use
    go_on_expecting();
}

void ExpertStore::go_on_expecting() {
    for (; next_expected_ < expected_.size(); ++next_expected_) {
        const int64_t id = expected_[next_expected_];
        const Expert *e = experts_[size_t(id)].get();
        try {
            if (e && e->expected && e->state == State::ABSENT && !admit(id, Origin::AHEAD, Giving::UNLISTED)) break;
        } catch (const Error &) { // no memory: the step itself will say so, if it has none either
            break;
        }
    }
    if (reader_) reader_->poll();
}

int64_t ExpertStore::acquire(const int64_t *wanted, int64_t count) {
    ++round_;
    for (int64_t i = 0; i < count; ++i) {
        experts_[size_t(wanted[i])]->listed = round_;
        finish(*experts_[size_t(wanted[i])]);
    }
    Expert &first = *experts_[size_t(wanted[0])];
    const uint64_t from = first.state == State::HELD ? 0 : clock_ns();
    if (first.state == State::ABSENT) admit(wanted[0], Origin::DEMANDED, Giving::LISTED);
    for (int64_t i = 1; i < count; ++i)
        if (experts_[size_t(wanted[i])]->state == State::ABSENT &&
            !admit(wanted[i], Origin::DEMANDED, Giving::EXPECTED))
            break;
    reader_->poll();
    finish(first);
    while (first.state != State::HELD) {
        if (first.state == State::ABSENT) {
            if (first.origin == Origin::DEMANDED)
                throw Error(DSV4_E_DEVICE, first.request.failure, first.request.native);
            admit(wanted[0], Origin::DEMANDED, Giving::LISTED); // a failed read ahead, again now that it counts
        }
        reader_->wait(first.request);
        finish(first);
    }
    if (from) waited_ns_.fetch_add(clock_ns() - from, std::memory_order_relaxed);
    int64_t n = 0;
    for (; n < count; ++n) {
        Expert &e = *experts_[size_t(wanted[n])];
        finish(e);
        if (e.state != State::HELD) break;
        std::atomic<uint64_t> &kind =
            e.origin == Origin::HELD ? held_ : e.origin == Origin::AHEAD ? ahead_ : demanded_;
        kind.fetch_add(1, std::memory_order_relaxed);
        e.origin = Origin::HELD;
        e.expected = false;
        ages_.splice(ages_.end(), ages_, e.age);
    }
    go_on_expecting();
    report_progress();
    return n;
}

const uint8_t *ExpertStore::data(int64_t expert, int piece) const {
    const Expert &e = *experts_[size_t(expert)];
    const FilePiece &p = e.part[piece];
    return p.file < 0 ? nullptr : e.memory.data() + e.at[piece] + p.offset % DiskFile::alignment;
}

StoreCounts ExpertStore::counts() const {
    const auto of = [](const std::atomic<uint64_t> &n) { return n.load(std::memory_order_relaxed); };
    return {of(held_), of(ahead_), of(demanded_), of(bytes_read_), of(waited_ns_)};
}

void ExpertStore::report_progress() {
    const uint64_t now = clock_ns();
    if (!reported_ns_) reported_ns_ = now;
    if (now - reported_ns_ < progress_ns) return;
    const StoreCounts c = counts(), &r = reported_;
    const double seconds = double(now - reported_ns_) * 1e-9, held = double(c.held - r.held);
    const double ahead = double(c.ahead - r.ahead), all = held + ahead + double(c.demanded - r.demanded);
    char line[200];
    std::snprintf(line, sizeof line,
                  "cpu: experts on disk, last %.0f s: %.0f used, %.1f %% from memory, %.1f %% read ahead; %.2f GB/s, "
                  "%.0f %% of the time waited for the disk",
                  seconds, all, all > 0 ? 100 * held / all : 0.0, all > 0 ? 100 * ahead / all : 0.0,
                  double(c.bytes_read - r.bytes_read) * 1e-9 / seconds,
                  100 * double(c.waited_ns - r.waited_ns) * 1e-9 / seconds);
    log_(2, line);
    reported_ = c;
    reported_ns_ = now;
}

} // namespace dsv4::cpu
