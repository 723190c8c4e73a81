// Rows as a table for people and as JSON for programs.
#include "suite.hpp"
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

namespace dsv4::conformance {
namespace {

const char *word(Verdict verdict) {
    return verdict == Verdict::pass ? "ok" : verdict == Verdict::fail ? "FAIL" : "skipped";
}

std::string number(const char *format, double value) {
    char text[40];
    std::snprintf(text, sizeof text, format, value);
    return text;
}

} // namespace

bool passed(const std::vector<Row> &rows) {
    return !rows.empty() &&
           std::none_of(rows.begin(), rows.end(), [](const Row &r) { return r.verdict == Verdict::fail; });
}

std::string to_table(const std::vector<Row> &rows) {
    constexpr size_t columns = 10;
    using Line = std::vector<std::string>;
    std::vector<Line> lines{
        {"verdict", "check", "operator", "shape", "numerics", "measure", "error", "allowed", "call", "rows/s"}};
    std::vector<std::string> notes{"note"};
    for (const Row &r : rows) {
        lines.push_back({word(r.verdict), r.check, r.op, r.shape, r.numerics, r.measure, number("%.3g", r.error),
                         number("%.3g", r.tolerance), r.seconds > 0 ? number("%.4g ms", r.seconds * 1e3) : "",
                         r.rows_per_second > 0 ? number("%.4g", r.rows_per_second) : ""});
        notes.push_back(r.note);
    }
    std::vector<size_t> width(columns, 0);
    for (const Line &line : lines)
        for (size_t i = 0; i < columns; ++i) width[i] = std::max(width[i], line[i].size());
    std::string text;
    for (size_t n = 0; n < lines.size(); ++n) {
        for (size_t i = 0; i < columns; ++i) text += lines[n][i] + std::string(width[i] - lines[n][i].size() + 2, ' ');
        text += notes[n];
        text.erase(text.find_last_not_of(' ') + 1);
        text += '\n';
    }
    const auto count = [&](Verdict v) {
        return std::to_string(std::count_if(rows.begin(), rows.end(), [&](const Row &r) { return r.verdict == v; }));
    };
    text +=
        count(Verdict::pass) + " ok, " + count(Verdict::fail) + " failed, " + count(Verdict::skipped) + " skipped\n";
    return text;
}

std::string to_json(const std::vector<Row> &rows) {
    using Json = nlohmann::ordered_json;
    // JSON has no infinity: a value that is not a number is null.
    const auto finite = [](double v) { return std::isfinite(v) ? Json(v) : Json(nullptr); };
    Json list = Json::array();
    for (const Row &r : rows)
        list.push_back({{"check", r.check},
                        {"operator", r.op},
                        {"shape", r.shape},
                        {"numerics", r.numerics},
                        {"verdict", word(r.verdict)},
                        {"measure", r.measure},
                        {"error", finite(r.error)},
                        {"tolerance", finite(r.tolerance)},
                        {"seconds_per_call", r.seconds},
                        {"rows_per_second", r.rows_per_second},
                        {"note", r.note}});
    return Json{{"passed", passed(rows)}, {"rows", list}}.dump(1, ' ', false, Json::error_handler_t::replace);
}

} // namespace dsv4::conformance
