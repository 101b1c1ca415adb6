import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { rm, statfs, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { MiB, seededRandom, systemClock, type Clock } from '../../../src/base/index.ts'
import type { ModelStore } from '../../../src/storage/index.ts'
import { contentOf, fileOf, fileStore, nextEvent, readBlock, sampleOf, temporaryDirectory, writeBlock, type Sample } from '../../compliance/store-fixtures.ts'
import { until } from '../../support/until.ts'

/** Real time, except that the probe of a failed volume waits for `probe()`. */
class ProbeClock implements Clock {
  #probe: (() => void) | undefined
  now (): number { return systemClock.now() }
  monotonic (): number { return systemClock.monotonic() }
  setTimeout (fn: () => void, delayMs: number): () => void {
    if (delayMs < 1_000) return systemClock.setTimeout(fn, delayMs)
    this.#probe = fn
    return () => { this.#probe = undefined }
  }

  get waiting (): boolean { return this.#probe !== undefined }
  probe (): void { this.#probe?.() }
}

describe('files: a full disk', function () {
  let directory: AsyncDisposable & { path: string }
  let store: ModelStore
  const clock = new ProbeClock()

  before(function () {
    if (process.getuid?.() !== 0) {
      this.test?.parent?.tests.forEach(test => { test.title += ' (skipped: mounting a small tmpfs needs root)' })
      this.skip()
    }
  })
  beforeEach(async () => {
    directory = await temporaryDirectory()
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=32m', 'shoal-test', directory.path])
    store = fileStore(directory.path, { clock })
    await store.start()
  })
  afterEach(async () => {
    await store.stop()
    execFileSync('umount', [directory.path])
    await directory[Symbol.asyncDispose]()
  })

  const model = (seed: number, blocks: number): Sample => {
    const content = contentOf(seededRandom(seed), blocks * MiB)
    return sampleOf([{ path: 'model.bin', content, sizes: Array.from({ length: blocks }, () => MiB) }])
  }
  /** Leaves `bytes` free, as somebody else on the volume might. */
  const fillUp = async (bytes: number): Promise<string> => {
    const path = join(directory.path, 'somebody-else')
    const { bavail, bsize } = await statfs(directory.path)
    await writeFile(path, Buffer.alloc(Math.max(0, bavail * bsize - bytes), 1))
    return path
  }

  it('is told before a load starts', async () => {
    await assert.rejects(store.putModel(model(1, 40).model), error => {
      assert.ok(error instanceof Error)
      assert.equal(error.name, 'OutOfSpaceError')
      assert.match(error.message, /needs 41943040 bytes on disk; \d+ are free/)
      return true
    })
    await assert.rejects(store.importFile(40 * MiB), { name: 'OutOfSpaceError' })
    assert.deepEqual(store.models(), [])
    assert.equal((await store.status()).writable, true)
  })

  it('makes room by evicting what is cached', async () => {
    const old = model(2, 20)
    await store.putModel(old.model)
    for (let block = 0; block < 20; block++) await writeBlock(store, fileOf(store, old), old.files[0]?.content ?? Buffer.alloc(0), block)
    await store.flush()
    await store.putModel(model(3, 20).model)
    assert.equal(store.model(old.cid), undefined)
  })

  it('turns read-only in the middle of a load, keeps serving, and recovers', async () => {
    const sample = model(4, 16)
    const content = sample.files[0]?.content ?? Buffer.alloc(0)
    await store.putModel(sample.model)
    const file = fileOf(store, sample)
    for (let block = 0; block < 4; block++) await writeBlock(store, file, content, block)
    await store.flush()

    const filler = await fillUp(2 * MiB)
    const states: boolean[] = []
    store.events.on('volume:state', ({ writable }) => { states.push(writable) })
    const failures: string[] = []
    for (let block = 4; block < 16; block++) await writeBlock(store, file, content, block).catch(error => { failures.push(error instanceof Error ? error.name : '') })
    await store.flush().catch(() => undefined)
    assert.equal(failures[0], 'OutOfSpaceError')
    assert.ok(failures.slice(1).every(name => name === 'StoreReadOnlyError'), failures.join())
    assert.deepEqual(states, [false])
    const status = await store.status()
    assert.equal(status.writable, false)
    assert.match(status.error ?? '', /disk is full/)
    assert.ok((await readBlock(store, file, 2))?.equals(content.subarray(2 * MiB, 3 * MiB)))
    await assert.rejects(store.putModel(model(5, 1).model), { name: 'StoreReadOnlyError' })

    // Still full: the probe says so and waits again.
    clock.probe()
    await until('it waits again', () => clock.waiting)
    assert.deepEqual(states, [false])

    await rm(filler)
    const recovered = nextEvent(store, 'volume:state')
    clock.probe()
    await recovered
    assert.deepEqual(states, [false, true])
    for (let block = 0; block < 16; block++) await writeBlock(store, file, content, block)
    await store.flush()
    assert.equal(store.model(sample.cid)?.complete, true)
    assert.deepEqual((await store.verify(undefined)).bad, [])
  })

  it('does not keep the store from starting', async () => {
    const sample = model(7, 4)
    const content = sample.files[0]?.content ?? Buffer.alloc(0)
    await store.putModel(sample.model)
    for (let block = 0; block < 4; block++) await writeBlock(store, fileOf(store, sample), content, block)
    await store.stop()
    await fillUp(256 * 1024) // SQLite's own files
    store = fileStore(directory.path, { clock })
    await store.start()
    assert.equal(store.model(sample.cid)?.complete, true)
    assert.ok((await readBlock(store, fileOf(store, sample), 2))?.equals(content.subarray(2 * MiB, 3 * MiB)))
    await store.touchModel(sample.cid)
    await store.removeModel(sample.cid)
  })

  it('can be helped by removing a model, even when nothing can be written', async () => {
    const sample = model(6, 8)
    const content = sample.files[0]?.content ?? Buffer.alloc(0)
    await store.putModel(sample.model)
    for (let block = 0; block < 8; block++) await writeBlock(store, fileOf(store, sample), content, block)
    await store.flush()
    await fillUp(0)
    await store.removeModel(sample.cid)
    assert.deepEqual(store.models(), [])
    const { bavail, bsize } = await statfs(directory.path)
    assert.ok(bavail * bsize >= 7 * MiB)
    await store.stop()
    store = fileStore(directory.path, { clock })
    await store.start()
    assert.deepEqual(store.models(), [])
  })
})
