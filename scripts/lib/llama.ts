import { randomInt, type Random } from '../../src/base/index.ts'

export interface ModelShape {
  vocabulary: number
  hidden: number
  intermediate: number
  layers: number
  heads: number
  kvHeads: number
  headDim: number
}

/** A tensor to be filled with normally distributed bf16 weights. */
export interface TensorShape { name: string, shape: number[], mean: number, deviation: number }

/** Hidden sizes of published models of the family, and small ones in the same spirit. */
const HIDDEN = [64, 128, 192, 256, 384, 512, 768, 1024, 1280, 1536, 2048, 2560, 3072, 4096, 5120, 6144, 8192, 12288, 16384]
/** LLaMA 3: 14,336 / 4,096 is 3.5, LLaMA 2: 11,008 / 4,096. */
const INTERMEDIATE_RATIO = 2.6875
/** Hidden size per layer: 128 for the 7B models, 102 for 70B, less for small ones. */
const HIDDEN_PER_LAYER = 96
const VOCABULARY_MAX = 32_000
const VOCABULARY_MIN = 2_000
/** Of one tensor in a safetensors header and in the weight map, about. */
const ENTRY_BYTES = 220
const INITIALIZER_RANGE = 0.02

/** The shape whose weights come closest to `bytes` in bf16 with proportions as published models have them. */
export function modelShape (bytes: number, vocabulary: number): ModelShape {
  let best: { shape: ModelShape, off: number } | undefined
  for (const hidden of HIDDEN) {
    const base = shapeOf(hidden, Math.round(hidden * INTERMEDIATE_RATIO / 8) * 8, 1, vocabulary)
    const perLayer = parametersOf({ ...base, layers: 2 }) - parametersOf(base)
    const layers = Math.floor((bytes / 2 - parametersOf({ ...base, layers: 0 })) / perLayer)
    if (layers < 2) continue
    const off = Math.abs(Math.log(layers * HIDDEN_PER_LAYER / hidden))
    if (best === undefined || off < best.off) best = { shape: { ...base, layers }, off }
  }
  const { shape } = best ?? { shape: shapeOf(64, 64, 2, vocabulary) }
  // What the whole layers leave over goes into the width of the MLPs.
  const overhead = ENTRY_BYTES * (9 * shape.layers + 3)
  const left = (bytes - overhead) / 2 - parametersOf({ ...shape, intermediate: 0 })
  return { ...shape, intermediate: Math.max(8, Math.floor(left / (3 * shape.hidden * shape.layers))) }
}

function shapeOf (hidden: number, intermediate: number, layers: number, vocabulary: number): ModelShape {
  const headDim = hidden >= 4096 ? 128 : Math.min(64, hidden / 4)
  const heads = hidden / headDim
  return { vocabulary, hidden, intermediate, layers, heads, kvHeads: Math.max(1, Math.floor(heads / 4)), headDim }
}

function parametersOf (shape: ModelShape): number {
  const { vocabulary, hidden, intermediate, layers, kvHeads, headDim } = shape
  const layer = 2 * hidden * hidden + 2 * hidden * kvHeads * headDim + 3 * hidden * intermediate + 2 * hidden
  return 2 * vocabulary * hidden + hidden + layers * layer
}

/** All tensors, in the order of the model. */
export function tensorsOf (shape: ModelShape): TensorShape[] {
  const { vocabulary, hidden, intermediate, layers, kvHeads, headDim } = shape
  const matrix = (name: string, rows: number, columns: number, deviation = INITIALIZER_RANGE): TensorShape => ({ name: `${name}.weight`, shape: [rows, columns], mean: 0, deviation })
  const norm = (name: string): TensorShape => ({ name: `${name}.weight`, shape: [hidden], mean: 1, deviation: 0.05 })
  // Projections back into the residual stream start out smaller the deeper the model is (GPT-2 paper, section 2.3).
  const residual = INITIALIZER_RANGE / Math.sqrt(2 * layers)
  const tensors = [matrix('model.embed_tokens', vocabulary, hidden)]
  for (let i = 0; i < layers; i++) {
    const layer = `model.layers.${i}`
    tensors.push(
      norm(`${layer}.input_layernorm`),
      matrix(`${layer}.self_attn.q_proj`, hidden, hidden),
      matrix(`${layer}.self_attn.k_proj`, kvHeads * headDim, hidden),
      matrix(`${layer}.self_attn.v_proj`, kvHeads * headDim, hidden),
      matrix(`${layer}.self_attn.o_proj`, hidden, hidden, residual),
      norm(`${layer}.post_attention_layernorm`),
      matrix(`${layer}.mlp.gate_proj`, intermediate, hidden),
      matrix(`${layer}.mlp.up_proj`, intermediate, hidden),
      matrix(`${layer}.mlp.down_proj`, hidden, intermediate, residual)
    )
  }
  tensors.push(norm('model.norm'), matrix('lm_head', vocabulary, hidden))
  return tensors
}

const SYLLABLES = 'a e i o u an en in on er re te ti st th he nd ing ion ent al or ar es is le ra ro li la ne de se me co ta ri ma ve pro con com per str tr ch sh qu'.split(' ')

/**
 * A tokenizer.json as the tokenizers library writes it for byte-fallback BPE: bytes, then syllables, then tokens that
 * each merge two before them. A small model of `bytes` gets a small vocabulary, so that its embeddings stay a part of it.
 */
export function tokenizerJson (bytes: number, random: Random): { json: string, vocabulary: number } {
  const size = Math.max(VOCABULARY_MIN, Math.min(VOCABULARY_MAX, Math.floor(bytes / 1024)))
  const vocab = new Map<string, number>()
  const add = (token: string): boolean => {
    if (vocab.has(token)) return false
    vocab.set(token, vocab.size)
    return true
  }
  for (const token of ['<unk>', '<s>', '</s>']) add(token)
  for (let byte = 0; byte < 256; byte++) add(`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`)
  const words: string[] = []
  for (const piece of SYLLABLES) for (const token of [piece, `▁${piece}`]) if (add(token)) words.push(token)
  const merges: string[] = []
  while (vocab.size < size) {
    // The square favours early, short pieces, as frequent ones are.
    const left = words[Math.floor(random.next() ** 2 * words.length)] ?? ''
    const right = words[randomInt(random, Math.min(words.length, 400))]?.replace('▁', '') ?? ''
    if (left.length + right.length > 16 || !add(left + right)) continue
    words.push(left + right)
    merges.push(`${left} ${right}`)
  }
  const special = ['<unk>', '<s>', '</s>'].map((content, id) => ({ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true }))
  const json = JSON.stringify({
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: special,
    normalizer: { type: 'Sequence', normalizers: [{ type: 'Prepend', prepend: '▁' }, { type: 'Replace', pattern: { String: ' ' }, content: '▁' }] },
    pre_tokenizer: null,
    post_processor: null,
    decoder: { type: 'Sequence', decoders: [{ type: 'Replace', pattern: { String: '▁' }, content: ' ' }, { type: 'ByteFallback' }, { type: 'Fuse' }, { type: 'Strip', content: ' ', start: 1, stop: 0 }] },
    model: { type: 'BPE', dropout: null, unk_token: '<unk>', continuing_subword_prefix: null, end_of_word_suffix: null, fuse_unk: true, byte_fallback: true, ignore_merges: false, vocab: Object.fromEntries(vocab), merges }
  }, null, 2)
  return { json, vocabulary: size }
}
