import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdtemp, readFile, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { deflateRawSync } from 'node:zlib'
import { MiB } from '../../../src/base/index.ts'
import { checkPaths, hashBlock, planBlocks, readSafetensors } from '../../../src/model/index.ts'
import { writeSyntheticModel } from '../../../scripts/lib/synthetic-model.ts'

interface WeightIndex { metadata: { total_size: number }, weight_map: Record<string, string> }

describe('synthetic model', () => {
  let root = ''
  before(async () => { root = await mkdtemp(join(tmpdir(), 'shoal-synthetic-')) })
  after(async () => { await rm(root, { recursive: true, force: true }) })

  async function files (directory: string): Promise<Map<string, Buffer>> {
    const names = (await readdir(directory)).sort()
    return new Map(await Promise.all(names.map(async (name): Promise<[string, Buffer]> => [name, await readFile(join(directory, name))])))
  }

  async function make (name: string, bytes: number, seed: number, shards?: number): Promise<Map<string, Buffer>> {
    const directory = join(root, name)
    await writeSyntheticModel(directory, { bytes, seed, shards })
    return await files(directory)
  }

  it('is what Hugging Face would give: every tensor of the weight map, in valid safetensors files', async () => {
    const made = await make('whole', 12 * MiB, 1)
    checkPaths([...made.keys()])
    assert.deepEqual([...made.keys()], [
      'config.json', 'generation_config.json', 'model-00001-of-00004.safetensors', 'model-00002-of-00004.safetensors', 'model-00003-of-00004.safetensors',
      'model-00004-of-00004.safetensors', 'model.safetensors.index.json', 'tokenizer.json', 'tokenizer_config.json'
    ])
    const index = JSON.parse(String(made.get('model.safetensors.index.json'))) as WeightIndex
    const config = JSON.parse(String(made.get('config.json'))) as { hidden_size: number, vocab_size: number, num_hidden_layers: number, num_key_value_heads: number, head_dim: number }
    const found = new Map<string, string>()
    let bytes = 0
    for (const [name, content] of made) {
      if (!name.endsWith('.safetensors')) continue
      const { tensors } = await readSafetensors(async (offset, length) => content.subarray(offset, offset + length), content.length)
      for (const tensor of tensors) {
        found.set(tensor.name, name)
        bytes += tensor.length
        assert.equal(tensor.dtype, 'BF16')
        if (tensor.name === 'lm_head.weight') assert.deepEqual(tensor.shape, [config.vocab_size, config.hidden_size])
        if (tensor.name.endsWith('k_proj.weight')) assert.deepEqual(tensor.shape, [config.num_key_value_heads * config.head_dim, config.hidden_size])
      }
    }
    assert.deepEqual(Object.fromEntries(found), index.weight_map)
    assert.equal(found.size, 3 + 9 * config.num_hidden_layers)
    assert.equal(bytes, index.metadata.total_size)
    const tokenizer = JSON.parse(String(made.get('tokenizer.json'))) as { model: { vocab: Record<string, number> } }
    assert.equal(Object.keys(tokenizer.model.vocab).length, config.vocab_size)
  })

  it('is the same from the same seed, and different in every block from another', async () => {
    const [one, again, other] = [await make('one', 3 * MiB, 7), await make('again', 3 * MiB, 7), await make('other', 3 * MiB, 8)]
    assert.deepEqual([...one].map(([, content]) => hashBlock(content).toString()), [...again].map(([, content]) => hashBlock(content).toString()))
    const blocks = async (made: Map<string, Buffer>): Promise<string[]> => {
      const all: string[] = []
      for (const [name, content] of made) {
        if (!name.endsWith('.safetensors')) continue
        const { sizes } = await planBlocks(name, content.length, async (offset, length) => content.subarray(offset, offset + length))
        let at = sizes[0] ?? 0
        for (const size of sizes.slice(1)) all.push(hashBlock(content.subarray(at, at += size)).toString())
      }
      return all
    }
    const all = [...await blocks(one), ...await blocks(other)]
    assert.equal(new Set(all).size, all.length)
  })

  it('never changes, so that figures stay comparable', async () => {
    const made = await make('fixed', 1 * MiB, 1)
    const sha256 = createHash('sha256')
    for (const [name, content] of made) sha256.update(name).update(content)
    assert.equal(sha256.digest('hex'), '6552b7af94af352ffd01a1c0e13d7c764880372592e3adf3f292211d5475ae67')
  })

  it('holds normal weights, barely compressible', async () => {
    const content = (await make('normal', 4 * MiB, 3)).get('model-00001-of-00004.safetensors') ?? Buffer.alloc(0)
    const { tensors } = await readSafetensors(async (offset, length) => content.subarray(offset, offset + length), content.length)
    const embed = tensors.find(tensor => tensor.name === 'model.embed_tokens.weight')
    assert.ok(embed !== undefined)
    const bytes = content.subarray(embed.offset, embed.offset + embed.length)
    const values = Array.from({ length: bytes.length / 2 }, (_, i) => bf16(bytes.readUInt16LE(i * 2)))
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length
    const deviation = Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length)
    assert.ok(Math.abs(mean) < 0.0005 && Math.abs(deviation - 0.02) < 0.0005, `${mean} ${deviation}`)
    const within = values.filter(value => Math.abs(value) < 0.02).length / values.length
    assert.ok(Math.abs(within - 0.6827) < 0.01, `${within}`)
    assert.ok(deflateRawSync(bytes).length > 0.7 * bytes.length)
  })

  it('comes close to any size, in any number of shards', async () => {
    for (const [size, shards] of [[1 * MiB, 1], [1.5 * MiB, 2], [5 * MiB, 9], [30 * MiB, 4]] as const) {
      const made = await make(`${size}-${shards}`, size, 1, shards)
      const bytes = [...made.values()].reduce((sum, content) => sum + content.length, 0)
      assert.ok(Math.abs(bytes / size - 1) < 0.01, `${bytes} for ${size}`)
      assert.equal([...made.keys()].filter(name => name.endsWith('.safetensors')).length, shards)
      assert.equal(made.has('model.safetensors.index.json'), shards > 1)
    }
  })

  it('tells its progress, refuses sizes it cannot make, and stops when told', async () => {
    let last = { bytesDone: 0, bytesTotal: 1 }
    await writeSyntheticModel(join(root, 'told'), { bytes: 1 * MiB, seed: 1, onProgress: progress => { last = progress } })
    assert.equal(last.bytesDone, last.bytesTotal)
    for (const options of [{ bytes: 1 * MiB - 1, seed: 1 }, { bytes: NaN, seed: 1 }, { bytes: 1 * MiB, seed: 0.5 }, { bytes: 1 * MiB, seed: 1, shards: 0 }, { bytes: 1 * MiB, seed: 1, shards: 1000 }]) {
      await assert.rejects(writeSyntheticModel(join(root, 'refused'), options), { name: 'UsageError' })
    }
    const stop = new AbortController()
    await assert.rejects(writeSyntheticModel(join(root, 'stopped'), { bytes: 64 * MiB, seed: 1, signal: stop.signal, onProgress: () => { stop.abort() } }), { name: 'AbortError' })
  })
})

function bf16 (bits: number): number {
  return new Float32Array(Uint32Array.of(bits << 16).buffer)[0] ?? NaN
}
