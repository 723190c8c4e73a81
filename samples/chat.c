/* A conversation in a terminal, in C: text in, text out as it comes, Ctrl-C stops an answer.
 *
 *     chat MODEL [think]      MODEL is a folder with config.json, tokenizer.json and *.safetensors
 */
#include <signal.h>
#include <stdio.h>
#include "dsv4/dsv4.h"

static dsv4_cancel *volatile current; /* a signal handler has nothing else to reach it by */

static void on_interrupt(int signal_number) {
    (void)signal_number;
    if (current) dsv4_cancel_now(current); /* stores a flag: allowed in a handler */
}

static dsv4_str str(const char *text) {
    dsv4_str s;
    s.data = text;
    s.size = strlen(text);
    return s;
}

static void put(dsv4_str text) {
    fwrite(text.data, 1, text.size, stdout);
    fflush(stdout);
}

/* Prints one answer and adds it to the conversation. A cancelled answer is not added. */
static dsv4_status answer(dsv4_session *session, dsv4_prompt *prompt, dsv4_cancel *cancel, dsv4_error *error) {
    dsv4_generate_options options;
    dsv4_event event;
    dsv4_stream *stream = NULL;
    dsv4_status status;
    int reasoning = 0;

    DSV4_INIT(options);
    DSV4_INIT(event);
    options.prompt = prompt;
    options.temperature = 0.6f;
    options.top_p = 0.95f;
    status = dsv4_stream_open(session, &options, cancel, &stream, error);
    while (status == DSV4_OK && (status = dsv4_stream_next(stream, &event, error)) == DSV4_OK) {
        switch (event.kind) {
        case DSV4_EVENT_REASONING:
            if (!reasoning) printf("(thinking) ");
            reasoning = 1;
            put(event.text);
            break;
        case DSV4_EVENT_TEXT:
            if (reasoning) printf("\n\n");
            reasoning = 0;
            put(event.text);
            break;
        case DSV4_EVENT_DONE: /* the whole message: the next prompt starts with it, and is not computed again */
            status = dsv4_prompt_add_message(prompt, event.text, error);
            printf("\n[%u tokens, %u of the prompt's %u were held]\n", (unsigned)event.output_tokens,
                   (unsigned)event.cached_tokens, (unsigned)event.prompt_tokens);
            break;
        default: break;
        }
    }
    dsv4_stream_release(stream);
    return status == DSV4_END ? DSV4_OK : status;
}

int main(int argc, char **argv) {
    dsv4_prompt_options prompt_options;
    dsv4_error error;
    dsv4_runtime *runtime = NULL;
    dsv4_model *model = NULL;
    dsv4_session *session = NULL;
    dsv4_prompt *prompt = NULL;
    dsv4_status status;
    char line[8192];

    if (argc < 2) {
        fprintf(stderr, "usage: %s MODEL [think]\n", argv[0]);
        return 2;
    }
    DSV4_INIT(prompt_options);
    DSV4_INIT(error);
    if (argc > 2) prompt_options.flags = DSV4_PROMPT_THINKING;
    status = dsv4_runtime_create(NULL, &runtime, &error);
    if (status >= 0) status = dsv4_model_load(runtime, str(argv[1]), NULL, &model, &error);
    if (status >= 0) status = dsv4_session_create(model, NULL, &session, &error);
    if (status >= 0) status = dsv4_prompt_create(&prompt_options, &prompt, &error);
    signal(SIGINT, on_interrupt);

    while (status >= 0 && (printf("> "), fflush(stdout), fgets(line, sizeof line, stdin))) {
        dsv4_cancel *cancel = dsv4_cancel_create(); /* sticky: a new one for each answer */
        line[strcspn(line, "\n")] = '\0';
        status = dsv4_prompt_add_user(prompt, str(line), &error);
        current = cancel;
        if (status >= 0) status = answer(session, prompt, cancel, &error);
        current = NULL;
        dsv4_cancel_release(cancel);
        if (status == DSV4_E_CANCELLED) {
            printf("\n[stopped]\n");
            status = dsv4_prompt_add_assistant(prompt, str(""), str(""), &error);
        }
    }
    if (status < 0) fprintf(stderr, "error %d: %s\n", (int)status, error.message);
    dsv4_prompt_release(prompt); /* each takes NULL */
    dsv4_session_release(session);
    dsv4_model_release(model);
    dsv4_runtime_release(runtime);
    return status < 0 ? 1 : 0;
}
