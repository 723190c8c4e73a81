// dsv4.hpp first and twice, with everything instantiated that compiling alone can check.
#include "dsv4/dsv4.hpp"
#if __cplusplus >= 202002L
#include <ranges>
static_assert(std::ranges::input_range<dsv4::Stream>);
#endif
#include <array>

namespace {

template <class T>
constexpr bool moves_only =
    !std::is_copy_constructible_v<T> && std::is_nothrow_move_constructible_v<T> && std::is_nothrow_move_assignable_v<T>;
static_assert(moves_only<dsv4::Runtime> && moves_only<dsv4::Model> && moves_only<dsv4::Session> &&
              moves_only<dsv4::Stream>);
static_assert(std::is_copy_constructible_v<dsv4::Cancel>);

template <class T> constexpr bool is_the_c_struct = sizeof(dsv4::Sized<T>) == sizeof(T);
static_assert(is_the_c_struct<dsv4_model_options> && is_the_c_struct<dsv4_generate_options> &&
              is_the_c_struct<dsv4_event>);
static_assert(sizeof(dsv4::Session) == sizeof(void *) && sizeof(dsv4::Stream) == sizeof(void *));

static_assert(std::is_convertible_v<std::vector<std::int32_t>, dsv4::Ids>);
static_assert(std::is_convertible_v<std::array<std::int32_t, 3>, dsv4::Ids>);
static_assert(!std::is_convertible_v<std::vector<std::int64_t>, dsv4::Ids> &&
              !std::is_convertible_v<std::string, dsv4::Ids>);

} // namespace

int every_template(dsv4::Runtime &runtime, const dsv4::Cancel &cancel);
int every_template(dsv4::Runtime &runtime, const dsv4::Cancel &cancel) {
    const dsv4::Model model = runtime.load("", {}, [](std::uint64_t, std::uint64_t) {});
    const dsv4::Model other =
        runtime.load("", {}, [](std::uint64_t done, std::uint64_t total) { return done > total; });
    dsv4::Session session = model.session();
    const std::int32_t ids[] = {1, 2, 3};
    session.evaluate(ids, {}, [](std::uint32_t, std::int32_t, dsv4::Span<const float>) {});
    session.evaluate({1, 2}, {}, cancel, [](std::uint32_t, std::int32_t, dsv4::Span<const float>) { return true; });
    int tokens = 0;
    for (const dsv4::Event &event : session.generate({1, 2, 3})) tokens += event.kind == DSV4_EVENT_TOKEN;
    for (const dsv4::Event &event : session.generate(std::vector<std::int32_t>{1}, {}, cancel)) tokens += event.token;
    dsv4::Prompt prompt;
    prompt.system("a").user("b").assistant("c", "d").tool_call("e", "f", "{}").tool_result("e", "g");
    for (const dsv4::Event &event : session.generate(prompt)) tokens += event.kind == DSV4_EVENT_TEXT;
    for (const dsv4::Event &event : session.complete("h", {}, cancel)) tokens += event.kind == DSV4_EVENT_TEXT;
    return tokens;
}
