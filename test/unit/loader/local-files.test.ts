import assert from 'node:assert/strict'
import { chmod, mkdtemp, readdir, readlink, rename, rm, stat, truncate, unlink, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { LOADER_HANDLES_MAX } from '../../../src/base/index.ts'
import { LocalFiles, NotSealedError } from '../../../src/loader/local-files.ts'
import { viewOf } from '../../../src/loader/tensor-data.ts'
import { DTYPE_BITS } from '../../../src/model/safetensors.ts'
import type { OpenFile } from '../../../src/node/types.ts'

const { signal } = new AbortController()

describe('loader: local files', () => {
  let root = ''
  let local = new LocalFiles()
  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), 'shoal-loader-'))
    local = new LocalFiles()
  })
  afterEach(async () => {
    await local.close()
    await rm(root, { recursive: true, force: true })
  })

  async function file (name: string, content: Uint8Array): Promise<OpenFile> {
    const localPath = join(root, name)
    await writeFile(localPath, content)
    await chmod(localPath, 0o444)
    return { path: name, size: content.length, sha256: '', localPath, complete: true, wanted: true }
  }

  it('are read at any offset into aligned buffers', async () => {
    const content = Uint8Array.from({ length: 10_000 }, (_, i) => i % 251)
    const one = await file('one', content)
    for (const [offset, length] of [[0, 10_000], [1, 8], [9_999, 1], [3, 4_096]] as const) {
      const bytes = await local.read(one, offset, length, { sealed: true, signal })
      assert.deepEqual(bytes, content.slice(offset, offset + length))
      assert.equal(bytes.byteOffset, 0)
      assert.equal(bytes.buffer.byteLength, length)
    }
  })

  it('that are open for writing again are not taken as complete', async () => {
    const one = await file('one', new Uint8Array(10))
    await chmod(join(root, 'one'), 0o644)
    await assert.rejects(local.read(one, 0, 1, { sealed: true, signal }), NotSealedError)
    assert.equal((await local.read(one, 0, 1, { sealed: false, signal })).length, 1)
  })

  it('that were replaced, cut or removed give an error that says so', async () => {
    const one = await file('one', new Uint8Array(10))
    await local.read(one, 0, 1, { sealed: true, signal })
    await chmod(join(root, 'one'), 0o644)
    await truncate(join(root, 'one'), 5)
    await assert.rejects(local.read(one, 0, 1, { sealed: false, signal }), { name: 'SourceChangedError', message: /5 bytes/ })
    await unlink(join(root, 'one'))
    await assert.rejects(local.read(one, 0, 1, { sealed: true, signal }), { name: 'ModelNotFoundError' })
    await file('one', new Uint8Array(10).fill(1))
    assert.deepEqual(await local.read(one, 0, 1, { sealed: true, signal }), Uint8Array.of(1))
    await assert.rejects(local.read({ ...one, localPath: root }, 0, 1, { sealed: false, signal }), { name: /SourceChangedError|DiskError/ })
    await assert.rejects(local.read({ ...one, localPath: undefined }, 0, 1, { sealed: true, signal }), { name: 'UsageError' })
  })

  it('in place are read only while they look as they did when they were added', async () => {
    const one = await file('one', new Uint8Array(10))
    const path = join(root, 'one')
    await chmod(path, 0o644)
    const { size, mtimeMs, ino } = await stat(path)
    const guarded = { ...one, guard: { path, size, mtimeMs, ino } }
    assert.equal((await local.read(guarded, 0, 10, { sealed: true, signal })).length, 10)
    await utimes(path, new Date(), new Date(mtimeMs + 5_000))
    await assert.rejects(local.read(guarded, 0, 1, { sealed: true, signal }), { name: 'SourceChangedError', message: /mtimeMs/ })
    await file('two', new Uint8Array(10))
    await utimes(join(root, 'two'), new Date(), new Date(mtimeMs))
    await rename(join(root, 'two'), path)
    await assert.rejects(local.read(guarded, 0, 1, { sealed: true, signal }), { name: 'SourceChangedError' })
  })

  it('end when the signal says so, and leave no descriptor', async () => {
    const files = await Promise.all(Array.from({ length: LOADER_HANDLES_MAX + 20 }, async (_, i) => await file(`f${i}`, Uint8Array.of(i))))
    for (const [i, one] of files.entries()) assert.deepEqual(await local.read(one, 0, 1, { sealed: true, signal }), Uint8Array.of(i))
    await assert.rejects(local.read(files[0] ?? await file('x', new Uint8Array(1)), 0, 1, { sealed: true, signal: AbortSignal.abort() }), { name: 'AbortError' })
    const open = async (): Promise<number> => {
      const links = await Promise.all((await readdir('/proc/self/fd')).map(async fd => await readlink(`/proc/self/fd/${fd}`).catch(() => '')))
      return links.filter(link => link.startsWith(root)).length
    }
    assert.ok(await open() <= LOADER_HANDLES_MAX)
    await local.close()
    assert.equal(await open(), 0)
  })
})

describe('loader: tensor views', () => {
  it('have the elements of their dtype, or its raw words', () => {
    const types: Record<string, string> = { F64: 'Float64Array', F32: 'Float32Array', C64: 'Float32Array', I64: 'BigInt64Array', U64: 'BigUint64Array', I32: 'Int32Array', U32: 'Uint32Array', I16: 'Int16Array', U16: 'Uint16Array', F16: 'Uint16Array', BF16: 'Uint16Array', I8: 'Int8Array' }
    for (const dtype of Object.keys(DTYPE_BITS)) {
      const view = viewOf(dtype, new Uint8Array(48))
      assert.equal(view.constructor.name, types[dtype] ?? 'Uint8Array', dtype)
      assert.equal(view.byteLength, 48)
    }
    assert.deepEqual(viewOf('F32', new Uint8Array(Float32Array.of(1.5, -2).buffer)), Float32Array.of(1.5, -2))
    assert.equal(viewOf('F32', new Uint8Array(0)).length, 0)
  })
})
