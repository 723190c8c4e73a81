/* The smallest host in C: tokens in, tokens out, a callback as they come, Ctrl-C to stop.
 *
 *     generate MODEL 5 17 3 29      MODEL is a folder with config.json and *.safetensors
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include "dsv4/dsv4.h"

static dsv4_cancel *cancel; /* a signal handler has nothing else to reach it by */

static void on_interrupt(int signal_number) {
    (void)signal_number;
    dsv4_cancel_now(cancel); /* stores a flag: allowed in a handler */
}

static void on_log(void *user_data, int32_t level, dsv4_str line) {
    (void)user_data;
    if (level <= DSV4_LOG_WARNING) fprintf(stderr, "%.*s\n", (int)line.size, line.data);
}

static int32_t on_event(void *user_data, const dsv4_event *event) {
    (void)user_data;
    if (event->kind == DSV4_EVENT_TOKEN) {
        printf("%d ", (int)event->token);
        fflush(stdout);
    } else if (event->kind == DSV4_EVENT_DONE) {
        printf("\n%u tokens from a prompt of %u\n", (unsigned)event->output_tokens, (unsigned)event->prompt_tokens);
    }
    return 0; /* go on */
}

int main(int argc, char **argv) {
    dsv4_runtime_options runtime_options;
    dsv4_generate_options options;
    dsv4_error error;
    dsv4_str path;
    dsv4_runtime *runtime = NULL;
    dsv4_model *model = NULL;
    dsv4_session *session = NULL;
    int32_t *ids = NULL;
    dsv4_status status = DSV4_E_NO_MEMORY;
    int i;

    if (argc < 3) {
        fprintf(stderr, "usage: %s MODEL ID...\n", argv[0]);
        return 2;
    }
    DSV4_INIT(runtime_options);
    DSV4_INIT(options);
    DSV4_INIT(error);
    path.data = argv[1];
    path.size = strlen(argv[1]);
    ids = malloc((size_t)(argc - 2) * sizeof *ids);
    cancel = dsv4_cancel_create();
    if (!ids || !cancel) goto done;
    for (i = 2; i < argc; ++i) {
        char *end;
        long id;
        errno = 0;
        id = strtol(argv[i], &end, 10);
        if (end == argv[i] || *end || errno || id < INT32_MIN || id > INT32_MAX) {
            fprintf(stderr, "expected a token id, found '%s'\n", argv[i]);
            status = DSV4_E_INVALID;
            goto done;
        }
        ids[i - 2] = (int32_t)id; /* the library knows the vocabulary and checks the range */
    }
    signal(SIGINT, on_interrupt);

    runtime_options.log = on_log;
    status = dsv4_runtime_create(&runtime_options, &runtime, &error);
    if (status >= 0) status = dsv4_model_load(runtime, path, NULL, &model, &error);
    if (status >= 0) status = dsv4_session_create(model, NULL, &session, &error);
    if (status >= 0) {
        options.ids = ids;
        options.id_count = (size_t)(argc - 2);
        options.max_tokens = 32;
        status = dsv4_generate(session, &options, cancel, on_event, NULL, &error);
    }
done:
    if (status < 0 && error.message[0]) fprintf(stderr, "error %d: %s\n", (int)status, error.message);
    dsv4_session_release(session); /* each takes NULL */
    dsv4_model_release(model);
    dsv4_runtime_release(runtime);
    dsv4_cancel_release(cancel);
    free(ids);
    return status < 0 ? 1 : 0;
}
