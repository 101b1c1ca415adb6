/**
 * Writes a directory that looks like a LLaMA checkpoint from Hugging Face: the same files, tensor names, shapes and
 * distribution of weights, of any size, from a seed. Weights that are noise neither compress well nor repeat, so what
 * is measured with them is not flattered.
 */
import { createHash } from 'node:crypto'
import { mkdir, open, writeFile, type FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import { GiB, MiB, UsageError, seededRandom, throwIfAborted, type AbortOptions, type ProgressOptions } from '../../src/base/index.ts'
import { modelShape, tensorsOf, tokenizerJson, type ModelShape, type TensorShape } from './llama.ts'

export interface SyntheticModelOptions extends AbortOptions, ProgressOptions<{ bytesDone: number, bytesTotal: number, path: string }> {
  /** About how large all files together become; from 1 MiB on. */
  bytes: number
  /** The same seed and size make the same bytes on every machine. */
  seed: number
  /** Default 4. */
  shards?: number
}

interface ShardFile { name: string, header: Buffer, tensors: TensorShape[], bytes: number }

const BF16_BYTES = 2
/** Slices that stay in the cache, enough of them in flight to keep the disk busy while the next is made. */
const SLICE_BYTES = 1 * MiB
const SLICES = 4
export const SYNTHETIC_BYTES_MIN = 1 * MiB
export const SYNTHETIC_BYTES_MAX = 1024 * GiB

/** Writes the model into `directory`, which is made if need be; files of the same names are replaced. Throws UsageError for sizes it cannot make. */
export async function writeSyntheticModel (directory: string, options: SyntheticModelOptions): Promise<void> {
  const { bytes, seed, shards = 4, signal } = options
  if (!(bytes >= SYNTHETIC_BYTES_MIN && bytes <= SYNTHETIC_BYTES_MAX)) throw new UsageError(`a synthetic model has 1 MiB to 1 TiB, not ${bytes} bytes`)
  if (!Number.isSafeInteger(seed)) throw new UsageError(`a seed is a whole number, not ${seed}`)
  const tokenizer = tokenizerJson(bytes, seededRandom(seed))
  const shape = modelShape(bytes - Buffer.byteLength(tokenizer.json), tokenizer.vocabulary)
  const files = layOut(tensorsOf(shape), shards)
  const small = smallFiles(shape, tokenizer.json, files)
  const bytesTotal = files.reduce((sum, file) => sum + file.header.length + file.bytes, 0) + small.reduce((sum, [, text]) => sum + Buffer.byteLength(text), 0)

  await mkdir(directory, { recursive: true })
  let bytesDone = 0
  const told = (path: string) => (written: number): void => { options.onProgress?.({ bytesDone: bytesDone += written, bytesTotal, path }) }
  for (const [name, text] of small) {
    throwIfAborted(signal)
    await writeFile(join(directory, name), text)
    told(name)(Buffer.byteLength(text))
  }
  const writer = new WeightWriter(seed)
  for (const file of files) await writer.write(join(directory, file.name), file, told(file.name), signal)
}

/** Splits the tensors into `count` files of about equal size, in order, and makes each one's header. */
function layOut (tensors: readonly TensorShape[], count: number): ShardFile[] {
  if (!Number.isInteger(count) || count < 1 || count > tensors.length) throw new UsageError(`a model of this size has 1 to ${tensors.length} shards, not ${count}`)
  const groups: TensorShape[][] = []
  let left = tensors.reduce((sum, tensor) => sum + bytesOf(tensor), 0)
  let next = 0
  for (let shard = 0; shard < count; shard++) {
    const most = left / (count - shard)
    const keep = count - shard - 1 // at least one tensor for each of the others
    const group: TensorShape[] = []
    let bytes = 0
    for (let tensor = tensors[next]; tensor !== undefined && next < tensors.length - keep; tensor = tensors[next]) {
      if (keep > 0 && group.length > 0 && bytes + bytesOf(tensor) / 2 > most) break
      group.push(tensor)
      bytes += bytesOf(tensor)
      next++
    }
    left -= bytes
    groups.push(group)
  }
  return groups.map((group, i) => shardFile(shardName(i, count), group))
}

function shardName (i: number, count: number): string {
  const five = (n: number): string => `${n}`.padStart(5, '0')
  return count === 1 ? 'model.safetensors' : `model-${five(i + 1)}-of-${five(count)}.safetensors`
}

/** As save_file() writes it: tensors sorted by name, the header padded to 8 bytes with spaces. */
function shardFile (name: string, group: readonly TensorShape[]): ShardFile {
  const tensors = group.toSorted((a, b) => (a.name < b.name ? -1 : 1))
  let at = 0
  const entries = tensors.map((tensor): [string, object] => [tensor.name, { dtype: 'BF16', shape: tensor.shape, data_offsets: [at, at += bytesOf(tensor)] }])
  const json = JSON.stringify(Object.fromEntries([['__metadata__', { format: 'pt' }], ...entries]))
  const header = Buffer.alloc(8 + Math.ceil(json.length / 8) * 8, ' ')
  header.writeBigUInt64LE(BigInt(header.length - 8))
  header.write(json, 8)
  return { name, header, tensors, bytes: at }
}

function bytesOf (tensor: TensorShape): number {
  return tensor.shape.reduce((product, dimension) => product * dimension, BF16_BYTES)
}

function smallFiles (shape: ModelShape, tokenizer: string, files: readonly ShardFile[]): Array<[string, string]> {
  const json = (value: object): string => `${JSON.stringify(value, null, 2)}\n`
  const config = {
    architectures: ['LlamaForCausalLM'],
    attention_bias: false,
    bos_token_id: 1,
    eos_token_id: 2,
    head_dim: shape.headDim,
    hidden_act: 'silu',
    hidden_size: shape.hidden,
    initializer_range: 0.02,
    intermediate_size: shape.intermediate,
    max_position_embeddings: 8192,
    model_type: 'llama',
    num_attention_heads: shape.heads,
    num_hidden_layers: shape.layers,
    num_key_value_heads: shape.kvHeads,
    rms_norm_eps: 1e-5,
    rope_theta: 500000,
    tie_word_embeddings: false,
    torch_dtype: 'bfloat16',
    transformers_version: '4.51.3',
    use_cache: true,
    vocab_size: shape.vocabulary
  }
  const weightMap = files.flatMap(file => file.tensors.map((tensor): [string, string] => [tensor.name, file.name])).sort(([a], [b]) => (a < b ? -1 : 1))
  const totalSize = files.reduce((sum, file) => sum + file.bytes, 0)
  return [
    ['config.json', json(config)],
    ['generation_config.json', json({ bos_token_id: 1, do_sample: true, eos_token_id: 2, temperature: 0.6, top_p: 0.9, transformers_version: '4.51.3' })],
    ['tokenizer_config.json', json({ bos_token: '<s>', eos_token: '</s>', model_max_length: 8192, tokenizer_class: 'PreTrainedTokenizerFast' })],
    ['tokenizer.json', tokenizer],
    ...(files.length === 1 ? [] : [['model.safetensors.index.json', json({ metadata: { total_size: totalSize }, weight_map: Object.fromEntries(weightMap) })] satisfies [string, string]])
  ]
}

/** Makes and writes weights, slice by slice, from one small pool of buffers. */
class WeightWriter {
  readonly #seed: number
  readonly #slices = Array.from({ length: SLICES }, () => ({ bytes: new Uint8Array(SLICE_BYTES), written: Promise.resolve() }))
  readonly #tables = new Map<string, Uint16Array>()
  #turn = 0

  constructor (seed: number) { this.#seed = seed }

  async write (path: string, file: ShardFile, onBytes: (bytes: number) => void, signal: AbortSignal | undefined): Promise<void> {
    const handle = await open(path, 'w')
    try {
      await writeFully(handle, file.header, 0)
      onBytes(file.header.length)
      let at = file.header.length
      for (const tensor of file.tensors) {
        const weights = new Weights(`${this.#seed}/${tensor.name}`, this.#table(tensor))
        for (let left = bytesOf(tensor); left > 0;) {
          throwIfAborted(signal)
          const slice = this.#slices[this.#turn++ % SLICES]
          if (slice === undefined) throw new RangeError('no slice')
          await slice.written
          const bytes = slice.bytes.subarray(0, Math.min(left, SLICE_BYTES))
          weights.fill(bytes)
          slice.written = writeFully(handle, bytes, at).then(() => { onBytes(bytes.length) })
          slice.written.catch(() => undefined) // told at its next turn or below
          at += bytes.length
          left -= bytes.length
        }
      }
      await Promise.all(this.#slices.map(async slice => { await slice.written }))
    } finally {
      await Promise.allSettled(this.#slices.map(async slice => { await slice.written }))
      for (const slice of this.#slices) slice.written = Promise.resolve()
      await handle.close()
    }
  }

  #table ({ mean, deviation }: TensorShape): Uint16Array {
    const key = `${mean} ${deviation}`
    let table = this.#tables.get(key)
    if (table === undefined) this.#tables.set(key, table = normalTable(mean, deviation))
    return table
  }
}

/** An endless row of bf16 samples: sfc32 (as in base/random.ts), two samples a word, inlined because it decides the speed. */
class Weights {
  #a: number
  #b: number
  #c: number
  #d = 1
  readonly #table: Uint16Array

  constructor (name: string, table: Uint16Array) {
    const seed = createHash('sha256').update(name).digest()
    this.#a = seed.readInt32LE(0)
    this.#b = seed.readInt32LE(4)
    this.#c = seed.readInt32LE(8)
    this.#table = table
    this.fill(new Uint8Array(64))
  }

  /** Fills `bytes`, which starts at a multiple of 4 and has an even length. A number not divisible by 4 can only be a tensor's last. */
  fill (bytes: Uint8Array): void {
    const count = Math.ceil(bytes.length / 4)
    const words = (bytes.length & 3) === 0 ? new Uint32Array(bytes.buffer, bytes.byteOffset, count) : new Uint32Array(count)
    const table = this.#table
    let a = this.#a; let b = this.#b; let c = this.#c; let d = this.#d
    for (let i = 0; i < count; i++) {
      const t = (((a + b) | 0) + d) | 0
      d = (d + 1) | 0
      a = b ^ (b >>> 9)
      b = (c + (c << 3)) | 0
      c = (c << 21) | (c >>> 11)
      c = (c + t) | 0
      words[i] = (table[t & 0xffff] ?? 0) | ((table[t >>> 16] ?? 0) << 16)
    }
    this.#a = a; this.#b = b; this.#c = c; this.#d = d
    if (words.buffer !== bytes.buffer) bytes.set(new Uint8Array(words.buffer, 0, bytes.length))
  }
}

/** bf16 samples of a normal distribution at 65,536 equally likely places: an index of 16 random bits draws one. */
function normalTable (mean: number, deviation: number): Uint16Array {
  const table = new Uint16Array(65536)
  const float = new Float32Array(1)
  const bits = new Uint32Array(float.buffer)
  for (let i = 0; i < table.length; i++) {
    float[0] = mean + deviation * normalQuantile((i + 0.5) / table.length)
    const word = bits[0] ?? 0
    table[i] = (word + 0x7fff + ((word >>> 16) & 1)) >>> 16 // round to nearest even
  }
  return table
}

/** Abramowitz and Stegun, Handbook of Mathematical Functions, 26.2.23; off by less than 4.5e-4. */
function normalQuantile (p: number): number {
  const t = Math.sqrt(-2 * Math.log(Math.min(p, 1 - p)))
  const z = t - (2.515517 + t * (0.802853 + t * 0.010328)) / (1 + t * (1.432788 + t * (0.189269 + t * 0.001308)))
  return p < 0.5 ? -z : z
}

async function writeFully (handle: FileHandle, bytes: Uint8Array, at: number): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    const { bytesWritten } = await handle.write(bytes, done, bytes.length - done, at + done)
    done += bytesWritten
  }
}
