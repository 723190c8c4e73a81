#include "core/capi/arguments.hpp"
#include "core/capi/boundary.hpp"
#include "core/engine/session.hpp"

using namespace dsv4;

namespace {

dsv4_status fetch(dsv4_stream *stream, bool wait, dsv4_event *event, dsv4_error *err) {
    return boundary(err, [&] {
        require(stream, "stream");
        require(event, "event");
        check_sized(event, "event");  // before an event is taken off the stream
        dsv4_event ours;
        const dsv4_status status = stream->stream.next(wait, ours);
        if (status == DSV4_OK) write_sized(event, ours, "event");
        return status;
    });
}

}  // namespace

extern "C" {

dsv4_status dsv4_session_create(dsv4_model *model, const dsv4_session_options *options, dsv4_session **out,
                                dsv4_error *err) {
    return boundary(err, [&] {
        clear_out(out);
        require(model, "model");
        *out = new dsv4_session{std::make_shared<Session>(model->model, read_sized(options, "session options"))};
        return DSV4_OK;
    });
}

void dsv4_session_release(dsv4_session *session) { delete session; }

dsv4_status dsv4_session_tokens(const dsv4_session *session, int32_t *ids, size_t capacity, size_t *count,
                                dsv4_error *err) {
    return boundary(err, [&] {
        require(session, "session");
        require(count, "count");
        const std::vector<int32_t> tokens = session->session->tokens();
        *count = tokens.size();
        if (ids) std::copy_n(tokens.begin(), std::min(capacity, tokens.size()), ids);
        return DSV4_OK;
    });
}

dsv4_status dsv4_session_truncate(dsv4_session *session, size_t length, dsv4_error *err) {
    return boundary(err, [&] {
        require(session, "session");
        session->session->truncate(length);
        return DSV4_OK;
    });
}

dsv4_status dsv4_session_evaluate(dsv4_session *session, const int32_t *ids, size_t count,
                                  const dsv4_evaluate_options *options, dsv4_cancel *cancel, dsv4_logits_fn on_logits,
                                  void *user_data, dsv4_error *err) {
    return boundary(err, [&] {
        require(session, "session");
        const auto o = read_sized(options, "evaluate options");
        session->session->evaluate(ids, count, o, cancel, on_logits, user_data);
        return DSV4_OK;
    });
}

dsv4_status dsv4_stream_open(dsv4_session *session, const dsv4_generate_options *options, dsv4_cancel *cancel,
                             dsv4_stream **out, dsv4_error *err) {
    return boundary(err, [&] {
        clear_out(out);
        require(session, "session");
        *out = new dsv4_stream{Stream(session->session, read_sized(options, "generate options"), cancel)};
        return DSV4_OK;
    });
}

dsv4_status dsv4_stream_next(dsv4_stream *stream, dsv4_event *event, dsv4_error *err) {
    return fetch(stream, true, event, err);
}

dsv4_status dsv4_stream_poll(dsv4_stream *stream, dsv4_event *event, dsv4_error *err) {
    return fetch(stream, false, event, err);
}

void dsv4_stream_release(dsv4_stream *stream) { delete stream; }

dsv4_status dsv4_generate(dsv4_session *session, const dsv4_generate_options *options, dsv4_cancel *cancel,
                          dsv4_event_fn on_event, void *user_data, dsv4_error *err) {
    return boundary(err, [&] {
        require(session, "session");
        Stream stream(session->session, read_sized(options, "generate options"), cancel);
        dsv4_event event;
        while (stream.next(true, event) == DSV4_OK)
            if (on_event && on_event(user_data, &event)) break;
        return DSV4_OK;
    });
}

}  // extern "C"
