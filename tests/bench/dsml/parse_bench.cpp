// Throughput of the lenient stream parser: parse_bench [MB]
#include <cstdio>
#include <ctime>
#include <cstdlib>

#include "core/text/dsml_stream.hpp"

using namespace dsv4;

namespace {

/// Seconds of processor time: a shared machine's other work does not count.
double now() {
    timespec t{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

double run(const DsmlStreamOptions &options, const std::string &text, size_t chunk) {
    double best = 1e9;
    for (int round = 0; round < 3; ++round) {
        DsmlStreamParser parser(options);
        size_t bytes = 0;
        const auto begin = now();
        for (size_t i = 0; i < text.size(); i += chunk) {
            std::vector<DsmlEvent> events;
            parser.feed(std::string_view(text).substr(i, chunk), events);
            for (const DsmlEvent &event : events) bytes += event.text.size();
        }
        std::vector<DsmlEvent> events;
        parser.finish(events);
        best = std::min(best, now() - begin);
        if (bytes < text.size() / 2) std::abort();
    }
    return static_cast<double>(text.size()) / best / 1e6;
}

std::string repeat(const std::string &piece, size_t size) {
    std::string out;
    while (out.size() < size) out += piece;
    return out;
}

}  // namespace

int main(int argc, char **argv) {
    const size_t size = (argc > 1 ? static_cast<size_t>(std::atoi(argv[1])) : 32) << 20;
    DsmlStreamOptions options;
    options.tools = dsml_tools_from_json(R"([{"type":"function","function":{"name":"write","parameters":{"type":"object",
        "properties":{"text":{"type":"string"}}}}}])");
    const std::string D(kDsmlToken);
    const std::string open = "\n\n<" + D + "tool_calls>\n<" + D + "invoke name=\"write\">\n<" + D + "parameter name=\"text\" string=\"";
    const std::string close = "</" + D + "parameter>\n</" + D + "invoke>\n</" + D + "tool_calls>";
    const std::string prose = "The quick brown fox jumps over the lazy dog, and then it rests for a while in the shade of a tree.\n";
    const std::string code = "    for (int i = 0; i < n; ++i) { sum += a[i] * \"x\"[0]; }  // vector<int> a\n\tif (x) return `y`;\n";
    const std::string chinese = "今天天气很好，我们一起去公园散步，然后回家吃饭。\n";
    for (const size_t chunk : {size_t{1} << 16, size_t{64}}) {
        std::printf("chunks of %zu bytes, MB/s: prose content %.0f, code content %.0f, Chinese content %.0f, prose argument %.0f, "
                    "code argument %.0f, Chinese argument %.0f, JSON argument %.0f\n",
                    chunk, run(options, repeat(prose, size), chunk), run(options, repeat(code, size), chunk),
                    run(options, repeat(chinese, size), chunk), run(options, open + "true\">" + repeat(prose, size) + close, chunk),
                    run(options, open + "true\">" + repeat(code, size) + close, chunk),
                    run(options, open + "true\">" + repeat(chinese, size) + close, chunk),
                    run(options, open + "false\">[" + repeat("{\"key\": [1, 2.5, \"text\"]}, ", 12u << 20) + "0]" + close, chunk));
    }
}
