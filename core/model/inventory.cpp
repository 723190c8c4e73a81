#include "core/model/inventory.hpp"

#include <algorithm>
#include <charconv>
#include <initializer_list>
#include <map>
#include <set>
#include <string_view>
#include <utility>

#include "core/error.hpp"
#include "core/model/json_reader.hpp"
#include "core/model/rope.hpp"

namespace dsv4 {

namespace {

constexpr char kModelPrefix[] = "model.";

/// What a weight may be stored as.
enum class Form {
    kMatrix, // plain, FP8 with scales, FP4 with scales
    kPlain,  // F32, BF16, F16
    kF32,
    kIds // I64, I32
};

/// A size and the keys of config.json it follows from, for messages.
struct Dim {
    int64_t size;
    const char *key;
};

const char *types_text(Form form) {
    switch (form) {
    case Form::kMatrix: return "BF16, F16, F32, F8_E4M3 or packed FP4";
    case Form::kPlain: return "BF16, F16 or F32";
    case Form::kF32: return "F32";
    case Form::kIds: return "I64 or I32";
    }
    return "";
}

/// DSV4_* type of a weight, 0 when the form does not allow it.
int32_t weight_type(Form form, FileType type) {
    switch (type) {
    case FileType::kF32: return form == Form::kIds ? 0 : DSV4_F32;
    case FileType::kBF16: return form == Form::kMatrix || form == Form::kPlain ? DSV4_BF16 : 0;
    case FileType::kF16: return form == Form::kMatrix || form == Form::kPlain ? DSV4_F16 : 0;
    case FileType::kI64: return form == Form::kIds ? DSV4_I64 : 0;
    case FileType::kI32: return form == Form::kIds ? DSV4_I32 : 0;
    case FileType::kF8E4M3: return form == Form::kMatrix ? DSV4_FP8_E4M3 : 0;
    case FileType::kI8:
    case FileType::kU8:
    case FileType::kF4: return form == Form::kMatrix ? DSV4_FP4_E2M1 : 0;
    default: return 0;
    }
}

std::string dims_text(std::initializer_list<Dim> dims) {
    std::string out = "[";
    for (const Dim &d : dims) out += (out.size() > 1 ? ", " : "") + std::to_string(d.size);
    out += "] (";
    const size_t keys_at = out.size();
    for (const Dim &d : dims) out += (out.size() > keys_at ? ", " : "") + std::string(d.key);
    return out + " of config.json)";
}

/// "layers.12.attn.wq_a" -> 12 with root "layers."; -1 when the name is not of that kind.
int32_t block_index(std::string_view name, std::string_view root) {
    if (name.substr(0, root.size()) != root) return -1;
    name.remove_prefix(root.size());
    int32_t index = -1;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), index);
    const bool whole = error == std::errc() && end != name.data() + name.size() && *end == '.';
    return whole && index >= 0 ? index : -1;
}

std::string_view without_prefix(std::string_view name) {
    constexpr std::string_view prefix = kModelPrefix;
    return name.substr(0, prefix.size()) == prefix ? name.substr(prefix.size()) : name;
}

class Mapper {
  public:
    explicit Mapper(std::shared_ptr<const Checkpoint> checkpoint)
        : files_(*checkpoint), config_(checkpoint->config()), s_(config_.shape), used_(files_.tensors().size(), false),
          prefixed_first_(files_.find(std::string(kModelPrefix) + "embed.weight") != Checkpoint::kNone) {
        out_.checkpoint = std::move(checkpoint);
    }

    ModelWeights map() {
        look_around();
        map_ends();
        for (int32_t l = 0; l < s_.layers; ++l) map_layer(l);
        map_drafters();
        account();
        return std::move(out_);
    }

  private:
    // ---- finding and checking one weight ------------------------------------------------------------------------

    uint32_t find(const std::string &name) const {
        const std::string prefixed = kModelPrefix + name;
        const uint32_t at = files_.find(prefixed_first_ ? prefixed : name);
        return at != Checkpoint::kNone ? at : files_.find(prefixed_first_ ? name : prefixed);
    }
    bool has(const std::string &name) const { return find(name) != Checkpoint::kNone; }

    [[noreturn]] void fail(const TensorEntry &e, const std::string &expected) const {
        throw Error(DSV4_E_MODEL, std::string(files_.file(e).name()) + ": " + printable(e.name) + ": expected " +
                                      expected + ", found " + printable(e.type_name, 20) + " " +
                                      shape_text(files_.shape(e)));
    }
    [[noreturn]] void fail_missing(const std::string &name, const std::string &expected) const {
        throw Error(DSV4_E_MODEL, name + ": expected " + expected + ", found no such tensor in the " +
                                      std::to_string(files_.file_count()) + " safetensors file(s) of " +
                                      printable(files_.directory(), 80));
    }
    [[noreturn]] void contradiction(const std::string &key, const std::string &says, const std::string &tensor) const {
        throw Error(DSV4_E_MODEL, "config.json: " + key + ": expected what the tensors say, found " + says +
                                      "; they contradict it: " + tensor);
    }

    void add(BlockWeights &block, int32_t role, const std::string &name, Form form, std::initializer_list<Dim> dims,
             int32_t expert = -1) {
        const uint32_t at = find(name);
        if (at == Checkpoint::kNone) fail_missing(name, std::string(types_text(form)) + " " + dims_text(dims));
        const TensorEntry &e = files_.tensors()[at];
        dsv4_tensor t{};
        t.role = role;
        t.expert = expert;
        t.dtype = weight_type(form, e.type);
        if (t.dtype == 0) fail(e, std::string(types_text(form)) + " " + dims_text(dims));
        t.rank = static_cast<int32_t>(dims.size());
        t.shape[0] = dims.begin()[0].size;
        t.shape[1] = t.rank == 2 ? dims.begin()[1].size : 1;
        const bool packed = e.type == FileType::kI8 || e.type == FileType::kU8;
        if (t.dtype == DSV4_FP4_E2M1 && t.shape[1] % 32 != 0)
            fail(e, "a number of columns divisible by 32 for FP4, as " + dims_text(dims) + " is not");
        const auto shape = files_.shape(e);
        const bool fits = shape.size() == dims.size() && shape[0] == t.shape[0] &&
                          (t.rank == 1 || shape[1] == (packed ? t.shape[1] / 2 : t.shape[1]));
        if (!fits) fail(e, (packed ? "two FP4 per byte of " : printable(e.type_name, 20) + " ") + dims_text(dims));
        t.data = files_.data(e);
        t.bytes = e.bytes;
        t.path = files_.file(e).path().c_str();
        t.file_offset = e.begin;
        take(at);
        uint32_t scale = Checkpoint::kNone;
        if (t.dtype == DSV4_FP8_E4M3 || t.dtype == DSV4_FP4_E2M1) scale = add_scale(t, e, name);
        block.tensors.push_back(t);
        block.sources.push_back({at, scale});
    }

    uint32_t add_scale(dsv4_tensor &t, const TensorEntry &weight, const std::string &name) {
        const bool fp8 = t.dtype == DSV4_FP8_E4M3;
        t.scale_block[0] = fp8 ? config_.scale_block[0] : 1;
        t.scale_block[1] = fp8 ? config_.scale_block[1] : 32;
        for (int i = 0; i < 2; ++i) t.scale_shape[i] = (t.shape[i] + t.scale_block[i] - 1) / t.scale_block[i];
        const std::string expected = "F8_E8M0 or F32 " + shape_text({t.scale_shape, 2}) + ", one scale per " +
                                     std::to_string(t.scale_block[0]) + "x" + std::to_string(t.scale_block[1]) +
                                     " of " + std::string(printable(weight.type_name, 20)) + " " +
                                     shape_text({t.shape, 2});
        const std::string stem = name.substr(0, name.size() - std::string_view("weight").size());
        uint32_t at = Checkpoint::kNone;
        for (const char *suffix : {"scale", "weight_scale_inv", "scale_inv"})
            if (at == Checkpoint::kNone) at = find(stem + suffix);
        if (at == Checkpoint::kNone) fail_missing(stem + "scale", expected);
        const TensorEntry &e = files_.tensors()[at];
        const auto shape = files_.shape(e);
        t.scale_dtype = e.type == FileType::kF8E8M0 ? DSV4_E8M0 : e.type == FileType::kF32 ? DSV4_F32 : 0;
        if (t.scale_dtype == 0 || shape.size() != 2 || shape[0] != t.scale_shape[0] || shape[1] != t.scale_shape[1])
            fail(e, expected);
        // One path for both: a weight and its scale that live in different shards cannot say where the scale is.
        t.scale = files_.data(e);
        t.scale_bytes = e.bytes;
        t.scale_file_offset = e.file == weight.file ? e.begin : 0;
        if (e.file != weight.file) t.path = nullptr;
        take(at);
        return at;
    }

    void take(uint32_t at) {
        used_[at] = true;
        ++out_.used_tensors;
        out_.used_bytes += files_.tensors()[at].bytes;
    }

    // ---- the parts of the model -----------------------------------------------------------------------------------

    Dim hidden() const { return {s_.hidden, "hidden_size"}; }

    void map_ends() {
        BlockWeights &b = out_.ends;
        b.kind = DSV4_BLOCK_ENDS;
        const Dim V{s_.vocab, "vocab_size"};
        add(b, DSV4_ROLE_EMBED, "embed.weight", Form::kPlain, {V, hidden()});
        add(b, DSV4_ROLE_HEAD, "head.weight", Form::kPlain, {V, hidden()});
        map_head(b, "");
    }

    void map_head(BlockWeights &b, const std::string &p) {
        const Dim M{s_.streams, "hc_mult"};
        const Dim row{int64_t{s_.streams} * s_.hidden, "hc_mult * hidden_size"};
        add(b, DSV4_ROLE_NORM, p + "norm.weight", Form::kPlain, {hidden()});
        add(b, DSV4_ROLE_HC_HEAD_FN, p + "hc_head_fn", Form::kF32, {M, row});
        add(b, DSV4_ROLE_HC_HEAD_BASE, p + "hc_head_base", Form::kF32, {M});
        add(b, DSV4_ROLE_HC_HEAD_SCALE, p + "hc_head_scale", Form::kF32, {{1, "one value"}});
    }

    void map_layer(int32_t l) {
        const std::string p = "layers." + std::to_string(l) + ".";
        BlockWeights &b = out_.layers.emplace_back();
        start_block(b, DSV4_BLOCK_LAYER, l, config_.compress_ratios[static_cast<size_t>(l)]);
        map_block(b, p, "compress_ratios[" + std::to_string(l) + "]", l < config_.hash_layers);
    }

    void map_mtp(int32_t depth) {
        const std::string p = "mtp." + std::to_string(depth) + ".";
        BlockWeights &b = out_.mtp.emplace_back();
        start_block(b, DSV4_BLOCK_MTP, depth, config_.mtp_compress_ratio(depth));
        map_block(b, p, "compress_ratios[" + std::to_string(s_.layers + depth) + "]", false);
        add(b, DSV4_ROLE_E_PROJ, p + "e_proj.weight", Form::kMatrix, {hidden(), hidden()});
        add(b, DSV4_ROLE_H_PROJ, p + "h_proj.weight", Form::kMatrix, {hidden(), hidden()});
        add(b, DSV4_ROLE_E_NORM, p + "enorm.weight", Form::kPlain, {hidden()});
        add(b, DSV4_ROLE_H_NORM, p + "hnorm.weight", Form::kPlain, {hidden()});
        map_head(b, p);
    }

    void start_block(BlockWeights &b, int32_t kind, int32_t index, int32_t ratio) {
        b.kind = kind;
        b.index = index;
        b.compress_ratio = ratio;
        b.rope_frequency = rope_frequencies(config_, ratio);
        b.tensors.reserve(static_cast<size_t>(s_.experts) * 3 + 48);
        b.sources.reserve(b.tensors.capacity());
    }

    void map_block(BlockWeights &b, const std::string &p, const std::string &ratio_key, bool hash) {
        map_mixers(b, p);
        add(b, DSV4_ROLE_ATTN_NORM, p + "attn_norm.weight", Form::kPlain, {hidden()});
        add(b, DSV4_ROLE_FFN_NORM, p + "ffn_norm.weight", Form::kPlain, {hidden()});
        map_attention(b, p + "attn.");
        map_compression(b, p + "attn.", ratio_key);
        map_router(b, p + "ffn.", hash);
        map_experts(b, p + "ffn.");
    }

    void map_mixers(BlockWeights &b, const std::string &p) {
        const Dim mix{int64_t{2 + s_.streams} * s_.streams, "(2 + hc_mult) * hc_mult"};
        const Dim row{int64_t{s_.streams} * s_.hidden, "hc_mult * hidden_size"};
        const Dim scales{3, "pre, post and comb"};
        add(b, DSV4_ROLE_HC_ATTN_FN, p + "hc_attn_fn", Form::kF32, {mix, row});
        add(b, DSV4_ROLE_HC_ATTN_BASE, p + "hc_attn_base", Form::kF32, {mix});
        add(b, DSV4_ROLE_HC_ATTN_SCALE, p + "hc_attn_scale", Form::kF32, {scales});
        add(b, DSV4_ROLE_HC_FFN_FN, p + "hc_ffn_fn", Form::kF32, {mix, row});
        add(b, DSV4_ROLE_HC_FFN_BASE, p + "hc_ffn_base", Form::kF32, {mix});
        add(b, DSV4_ROLE_HC_FFN_SCALE, p + "hc_ffn_scale", Form::kF32, {scales});
    }

    void map_attention(BlockWeights &b, const std::string &a) {
        const Dim lora{s_.q_lora, "q_lora_rank"}, d{s_.head_dim, "head_dim"};
        const Dim all{int64_t{s_.heads} * s_.head_dim, "num_attention_heads * head_dim"};
        const Dim group{all.size / s_.o_groups, "num_attention_heads * head_dim / o_groups"};
        const Dim out{int64_t{s_.o_groups} * s_.o_lora, "o_groups * o_lora_rank"};
        add(b, DSV4_ROLE_WQ_A, a + "wq_a.weight", Form::kMatrix, {lora, hidden()});
        add(b, DSV4_ROLE_Q_NORM, a + "q_norm.weight", Form::kPlain, {lora});
        add(b, DSV4_ROLE_WQ_B, a + "wq_b.weight", Form::kMatrix, {all, lora});
        add(b, DSV4_ROLE_WKV, a + "wkv.weight", Form::kMatrix, {d, hidden()});
        add(b, DSV4_ROLE_KV_NORM, a + "kv_norm.weight", Form::kPlain, {d});
        add(b, DSV4_ROLE_ATTN_SINK, a + "attn_sink", Form::kF32, {{s_.heads, "num_attention_heads"}});
        add(b, DSV4_ROLE_WO_A, a + "wo_a.weight", Form::kMatrix, {out, group});
        add(b, DSV4_ROLE_WO_B, a + "wo_b.weight", Form::kMatrix, {hidden(), out});
    }

    void map_compression(BlockWeights &b, const std::string &a, const std::string &ratio_key) {
        const int32_t r = b.compress_ratio;
        const std::string norm = a + "compressor.norm.weight", index_norm = a + "indexer.compressor.norm.weight";
        if (r == 0 && has(norm)) contradiction(ratio_key, "0, a layer without compression", norm + " exists");
        if (r != 4 && has(index_norm))
            contradiction(ratio_key, std::to_string(r) + ", a layer without indexer", index_norm + " exists");
        if (r == 0) return;
        const Dim ratio{r, "compress_ratios"}, d{s_.head_dim, "head_dim"};
        const Dim wide = r == 4 ? Dim{2 * d.size, "2 * head_dim"} : d;
        add(b, DSV4_ROLE_COMP_WKV, a + "compressor.wkv.weight", Form::kPlain, {wide, hidden()});
        add(b, DSV4_ROLE_COMP_WGATE, a + "compressor.wgate.weight", Form::kPlain, {wide, hidden()});
        add(b, DSV4_ROLE_COMP_APE, a + "compressor.ape", Form::kF32, {ratio, wide});
        add(b, DSV4_ROLE_COMP_NORM, norm, Form::kPlain, {d});
        if (r != 4) return;
        const std::string i = a + "indexer.";
        const Dim keys{2 * int64_t{s_.index_dim}, "2 * index_head_dim"};
        add(b, DSV4_ROLE_INDEX_WQ_B, i + "wq_b.weight", Form::kMatrix,
            {{int64_t{s_.index_heads} * s_.index_dim, "index_n_heads * index_head_dim"}, {s_.q_lora, "q_lora_rank"}});
        add(b, DSV4_ROLE_INDEX_WEIGHTS, i + "weights_proj.weight", Form::kPlain,
            {{s_.index_heads, "index_n_heads"}, hidden()});
        add(b, DSV4_ROLE_INDEX_COMP_WKV, i + "compressor.wkv.weight", Form::kPlain, {keys, hidden()});
        add(b, DSV4_ROLE_INDEX_COMP_WGATE, i + "compressor.wgate.weight", Form::kPlain, {keys, hidden()});
        add(b, DSV4_ROLE_INDEX_COMP_APE, i + "compressor.ape", Form::kF32, {ratio, keys});
        add(b, DSV4_ROLE_INDEX_COMP_NORM, index_norm, Form::kPlain, {{s_.index_dim, "index_head_dim"}});
    }

    void map_router(BlockWeights &b, const std::string &f, bool hash) {
        const Dim E{s_.experts, "n_routed_experts"};
        const std::string table = f + "gate.tid2eid", bias = f + "gate.bias";
        if (hash != has(table)) {
            const std::string says = std::to_string(config_.hash_layers) + " (the first layers choose by token id)";
            contradiction("num_hash_layers", says, table + (hash ? " does not exist" : " exists"));
        }
        add(b, DSV4_ROLE_GATE, f + "gate.weight", Form::kPlain, {E, hidden()});
        if (hash)
            add(b, DSV4_ROLE_GATE_TID2EID, table, Form::kIds,
                {{s_.vocab, "vocab_size"}, {s_.active_experts, "num_experts_per_tok"}});
        else add(b, DSV4_ROLE_GATE_BIAS, bias, Form::kF32, {E});
    }

    void map_experts(BlockWeights &b, const std::string &f) {
        const Dim I{s_.expert_inter, "moe_intermediate_size"};
        for (int32_t e = 0; e < s_.experts; ++e) {
            const std::string x = f + "experts." + std::to_string(e) + ".";
            add(b, DSV4_ROLE_EXPERT_W1, x + "w1.weight", Form::kMatrix, {I, hidden()}, e);
            add(b, DSV4_ROLE_EXPERT_W2, x + "w2.weight", Form::kMatrix, {hidden(), I}, e);
            add(b, DSV4_ROLE_EXPERT_W3, x + "w3.weight", Form::kMatrix, {I, hidden()}, e);
        }
        check_expert_dtype(b.tensors.back().dtype, f + "experts." + std::to_string(s_.experts - 1) + ".w3.weight");
        const std::string more = f + "experts." + std::to_string(s_.experts) + ".w1.weight";
        if (has(more)) contradiction("n_routed_experts", std::to_string(s_.experts), more + " exists");

        // The shared expert's width follows from its own tensors: n_shared_experts times I where config.json says so.
        const std::string x = f + "shared_experts.";
        Dim Is{int64_t{s_.expert_inter}, "moe_intermediate_size"};
        if (const uint32_t at = find(x + "w1.weight"); at != Checkpoint::kNone) {
            const auto shape = files_.shape(files_.tensors()[at]);
            if (shape.size() == 2 && shape[0] > 0 && shape[0] <= (1 << 24))
                Is = {shape[0], "rows of shared_experts.w1"};
            if (config_.shared_experts && Is.size != int64_t{config_.shared_experts} * s_.expert_inter)
                contradiction("n_shared_experts", std::to_string(config_.shared_experts),
                              x + "w1.weight has " + std::to_string(Is.size) + " rows, moe_intermediate_size is " +
                                  std::to_string(s_.expert_inter));
        }
        add(b, DSV4_ROLE_SHARED_W1, x + "w1.weight", Form::kMatrix, {Is, hidden()});
        add(b, DSV4_ROLE_SHARED_W2, x + "w2.weight", Form::kMatrix, {hidden(), Is});
        add(b, DSV4_ROLE_SHARED_W3, x + "w3.weight", Form::kMatrix, {Is, hidden()});
    }

    void check_expert_dtype(int32_t found, const std::string &tensor) const {
        const std::string &says = config_.expert_dtype;
        if (says.empty()) return;
        const char *is = found == DSV4_FP4_E2M1 ? "fp4" : found == DSV4_FP8_E4M3 ? "fp8" : "bf16";
        const bool plain = says == "bf16" || says == "bfloat16" || says == "float16" || says == "float32";
        if (says != is && !(plain && is == std::string_view("bf16")))
            contradiction("expert_dtype", printable(says, 40), tensor + " is " + is);
    }

    // ---- what is there besides ------------------------------------------------------------------------------------

    /// Layers past the end, and which MTP blocks there are.
    void look_around() {
        for (const TensorEntry &e : files_.tensors()) {
            if (!e.listed) continue;
            const std::string_view name = without_prefix(e.name);
            if (block_index(name, "layers.") >= s_.layers)
                contradiction("num_hidden_layers", std::to_string(s_.layers),
                              std::string(files_.file(e).name()) + " has " + printable(e.name));
            const int32_t stage = block_index(name, "mtp.");
            if (stage >= 0) stages_.insert(stage);
        }
    }

    void map_drafters() {
        const std::string unaffected = "; generation is not affected";
        const std::string announced = "config.json announces " + std::to_string(config_.mtp_blocks) + " MTP block(s)";
        std::vector<int32_t> others;
        for (const int32_t stage : stages_) {
            const std::string p = "mtp." + std::to_string(stage) + ".";
            const bool normal = has(p + "e_proj.weight") || has(p + "h_proj.weight");
            const bool next = stage == static_cast<int32_t>(out_.mtp.size()) && stage < config_.mtp_blocks;
            if (normal && next) map_mtp(stage);
            else others.push_back(stage);
        }
        if (others.empty() && static_cast<int32_t>(out_.mtp.size()) < config_.mtp_blocks)
            out_.degradations.push_back(announced + ", the files hold " + std::to_string(out_.mtp.size()) +
                                        ": fewer drafts than announced" + unaffected);
        if (others.empty()) return;
        const std::string range =
            others.size() == 1 ? "mtp." + std::to_string(others.front())
                               : "mtp." + std::to_string(others.front()) + " to mtp." + std::to_string(others.back());
        const bool dspark = has("mtp.0.main_proj.weight") || config_.dspark;
        if (out_.mtp.empty() && dspark)
            out_.degradations.push_back(
                announced + ", the files hold a DSpark drafter of " + std::to_string(others.size()) + " stage(s) (" +
                range + (config_.dspark ? ", block " + std::to_string(config_.dspark->block_size) : "") +
                "): drafting is not available with this build" + unaffected);
        else
            out_.degradations.push_back(announced + ", the files hold " + std::to_string(others.size()) +
                                        " more or other (" + range + "): not used by this build" + unaffected);
    }

    /// "layers.3.extra.weight" -> "layers.3.extra.*", "vision.blocks.0.w" -> "vision.*"
    static std::string group_of(std::string_view name) {
        const std::string_view bare = without_prefix(name);
        const bool in_block = block_index(bare, "layers.") >= 0 || block_index(bare, "mtp.") >= 0;
        size_t end = name.size() - bare.size();
        for (int component = 0; component < (in_block ? 3 : 1); ++component) {
            end = name.find('.', end);
            if (end == name.npos) return printable(name);
            ++end;
        }
        return printable(name.substr(0, end)) + "*";
    }

    void account() {
        std::map<std::string, UnusedGroup> groups;
        for (size_t i = 0; i < used_.size(); ++i) {
            const TensorEntry &e = files_.tensors()[i];
            ++out_.total_tensors;
            out_.total_bytes += e.bytes;
            if (used_[i]) continue;
            UnusedGroup &g = groups[group_of(e.name)];
            ++g.tensors;
            g.bytes += e.bytes;
        }
        for (auto &[name, group] : groups) {
            group.name = name;
            out_.unused.push_back(group);
        }
    }

    const Checkpoint &files_;
    const Config &config_;
    const dsv4_shape &s_;
    std::vector<bool> used_;
    bool prefixed_first_;
    std::set<int32_t> stages_;
    ModelWeights out_;
};

} // namespace

dsv4_block_desc BlockWeights::desc(int32_t expert_tier) const {
    dsv4_block_desc d;
    DSV4_INIT(d);
    d.kind = kind;
    d.index = index;
    d.compress_ratio = compress_ratio;
    d.tensors = tensors.data();
    d.tensor_count = static_cast<uint32_t>(tensors.size());
    d.tensor_stride = sizeof(dsv4_tensor);
    d.rope_frequency = rope_frequency.empty() ? nullptr : rope_frequency.data();
    d.expert_tier = expert_tier;
    return d;
}

const dsv4_tensor *BlockWeights::find(int32_t role, int32_t expert) const {
    for (const dsv4_tensor &t : tensors)
        if (t.role == role && t.expert == expert) return &t;
    return nullptr;
}

ModelWeights map_weights(std::shared_ptr<const Checkpoint> checkpoint) { return Mapper(std::move(checkpoint)).map(); }

} // namespace dsv4
