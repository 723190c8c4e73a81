#include "tests/unit/hpp/tokenizer_file.hpp"
#include "tests/unit/text/train_bpe.hpp"

std::string small_tokenizer_json() {
    const std::string corpus = "the quick brown fox jumps over the lazy dog and then the other dog jumps over the fox ";
    return dsv4::test::train_tokenizer_json(corpus + corpus, 24,
                                            {"<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>",
                                             "<｜Assistant｜>", "<think>", "</think>", "｜DSML｜"});
}
