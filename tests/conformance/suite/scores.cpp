#include "scores.hpp"
#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <set>

namespace dsv4::conformance {
namespace {

double deviation(const std::vector<double> &values) {
    double mean = 0, square = 0;
    for (double v : values) mean += v;
    mean /= static_cast<double>(values.size());
    for (double v : values) square += (v - mean) * (v - mean);
    return std::max(std::sqrt(square / static_cast<double>(values.size())), 1e-30);
}

/// Reads k indices in 0..count-1, -1 for none; says what is wrong with them.
std::set<int64_t> read_choice(const float *row, int32_t k, int64_t count, std::string &broken) {
    std::set<int64_t> set;
    for (int32_t i = 0; i < k; ++i) {
        if (row[i] == -1) continue;
        if (!(row[i] >= 0) || row[i] != std::floor(row[i]) || row[i] >= static_cast<float>(count))
            broken = "index " + std::to_string(row[i]) + " of " + std::to_string(count);
        else if (!set.insert(static_cast<int64_t>(row[i])).second)
            broken = "index " + std::to_string(row[i]) + " twice";
    }
    return set;
}

void judge(const std::vector<double> &scores, int32_t k, const std::set<int64_t> &chosen,
           const std::set<int64_t> &reference, ChoiceReport &report) {
    const size_t expected = std::min<size_t>(static_cast<size_t>(k), scores.size());
    if (chosen.size() != expected) {
        report.broken = std::to_string(chosen.size()) + " chosen, expected " + std::to_string(expected);
        return;
    }
    if (expected == scores.size()) return; // everything is chosen
    std::vector<double> sorted = scores;
    std::nth_element(sorted.begin(), sorted.begin() + static_cast<std::ptrdiff_t>(expected) - 1, sorted.end(),
                     std::greater<>());
    const double last = sorted[expected - 1], unit = deviation(scores);
    size_t common = 0;
    for (int64_t i : chosen) {
        report.worst_deficit = std::max(report.worst_deficit, (last - scores[static_cast<size_t>(i)]) / unit);
        common += reference.count(i);
    }
    report.overlap = std::min(report.overlap, static_cast<double>(common) / static_cast<double>(expected));
}

} // namespace

std::vector<double> index_scores(const Weights &w, const dsv4_shape &s, const float *x, const float *qr,
                                 int32_t position, const std::vector<const float *> &keys) {
    const int32_t Hi = s.index_heads, di = s.index_dim, R = s.rope_dims;
    const dsv4_tensor &wq_b = *w.find(DSV4_ROLE_INDEX_WQ_B), &weights = *w.find(DSV4_ROLE_INDEX_WEIGHTS);
    std::vector<float> row(static_cast<size_t>(std::max(s.q_lora, s.hidden)));
    std::vector<double> scores(keys.size(), 0.0), q(static_cast<size_t>(di));
    std::map<const float *, double> seen; // aliased entries have one key
    for (int32_t h = 0; h < Hi; ++h) {
        for (int32_t i = 0; i < di; ++i) {
            dequantize_row(wq_b, static_cast<int64_t>(h) * di + i, row.data());
            double sum = 0;
            for (int32_t j = 0; j < s.q_lora; ++j) sum += static_cast<double>(row[static_cast<size_t>(j)]) * qr[j];
            q[static_cast<size_t>(i)] = sum;
        }
        for (int32_t j = 0; j < R / 2; ++j) { // the angle is a float32 product by definition
            const float angle = static_cast<float>(position) * w.rope[static_cast<size_t>(j)];
            const double c = std::cos(static_cast<double>(angle)), n = std::sin(static_cast<double>(angle));
            double &a = q[static_cast<size_t>(di - R + 2 * j)], &b = q[static_cast<size_t>(di - R + 2 * j + 1)];
            const double rotated = a * c - b * n;
            b = a * n + b * c;
            a = rotated;
        }
        for (int32_t half = 1; half < di; half *= 2) // Hadamard
            for (int32_t i = 0; i < di; i += 2 * half)
                for (int32_t j = i; j < i + half; ++j) {
                    const double a = q[static_cast<size_t>(j)], b = q[static_cast<size_t>(j + half)];
                    q[static_cast<size_t>(j)] = a + b;
                    q[static_cast<size_t>(j + half)] = a - b;
                }
        dequantize_row(weights, h, row.data());
        double weight = 0;
        for (int32_t j = 0; j < s.hidden; ++j) weight += static_cast<double>(row[static_cast<size_t>(j)]) * x[j];
        weight /= di * std::sqrt(static_cast<double>(Hi)); // di^-0.5 of the Hadamard and di^-0.5 Hi^-0.5 of the score
        seen.clear();
        for (size_t e = 0; e < keys.size(); ++e) {
            const auto [place, fresh] = seen.try_emplace(keys[e], 0.0);
            if (fresh) {
                double dot = 0;
                for (int32_t i = 0; i < di; ++i) dot += q[static_cast<size_t>(i)] * keys[e][i];
                place->second = std::max(dot, 0.0) * weight;
            }
            scores[e] += place->second;
        }
    }
    return scores;
}

void judge_selection(const std::vector<double> &scores, const std::vector<const float *> &keys, int32_t k,
                     const float *chosen_row, const float *reference_row, ChoiceReport &report) {
    std::string ignored;
    const auto count = static_cast<int64_t>(scores.size());
    const std::set<int64_t> chosen = read_choice(chosen_row, k, count, report.broken);
    const std::set<int64_t> reference = read_choice(reference_row, k, count, ignored);
    if (!report.broken.empty()) return;
    judge(scores, k, chosen, reference, report);
    // Entries with one and the same key tie exactly, whatever the arithmetic: the smaller index wins.
    std::map<const float *, int64_t> smallest_left_out;
    for (int64_t i = 0; i < count; ++i)
        if (!chosen.count(i)) smallest_left_out.try_emplace(keys[static_cast<size_t>(i)], i);
    for (int64_t i : chosen) {
        const auto other = smallest_left_out.find(keys[static_cast<size_t>(i)]);
        if (other != smallest_left_out.end() && other->second < i)
            report.broken = "entry " + std::to_string(i) + " chosen, though " + std::to_string(other->second) +
                            " has the same key and a smaller index";
    }
}

void route_scores(const Weights &w, const dsv4_shape &s, const float *x, std::vector<double> &plain,
                  std::vector<double> &biased) {
    const dsv4_tensor &gate = *w.find(DSV4_ROLE_GATE);
    const dsv4_tensor *bias = w.find(DSV4_ROLE_GATE_BIAS);
    std::vector<float> row(static_cast<size_t>(s.hidden)), offset(static_cast<size_t>(s.experts), 0.f);
    if (bias) dequantize_row(*bias, 0, offset.data());
    plain.resize(static_cast<size_t>(s.experts));
    biased.resize(plain.size());
    for (int32_t e = 0; e < s.experts; ++e) {
        dequantize_row(gate, e, row.data());
        double logit = 0;
        for (int32_t j = 0; j < s.hidden; ++j) logit += static_cast<double>(row[static_cast<size_t>(j)]) * x[j];
        const double softplus = std::max(logit, 0.0) + std::log1p(std::exp(-std::fabs(logit)));
        plain[static_cast<size_t>(e)] = std::sqrt(softplus);
        biased[static_cast<size_t>(e)] = plain[static_cast<size_t>(e)] + offset[static_cast<size_t>(e)];
    }
}

void judge_route(const std::vector<double> &biased, bool hash, int32_t k, const float *chosen_row,
                 const float *reference_row, ChoiceReport &report) {
    std::string ignored;
    const auto count = static_cast<int64_t>(biased.size());
    const std::set<int64_t> chosen = read_choice(chosen_row, k, count, report.broken);
    const std::set<int64_t> reference = read_choice(reference_row, k, count, ignored);
    if (!report.broken.empty()) return;
    if (!hash) return judge(biased, k, chosen, reference, report);
    if (chosen != reference) report.broken = "not the experts that the token id names";
}

} // namespace dsv4::conformance
