import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { LevelDatastore } from 'datastore-level'
import { Key } from 'interface-datastore'
import { silentLogger, type Clock } from '../../../src/base/index.ts'
import { RememberedPeers } from '../../../src/discovery/remembered-peers.ts'

const keyOf = (name: number | string): Key => new Key(`/peers/${name}`)
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)
const text = (value: Uint8Array): string => new TextDecoder().decode(value)

/** Timers are kept, and fire when the test says so. */
class HandClock implements Clock {
  readonly due = new Set<() => void>()
  now (): number { return 0 }
  monotonic (): number { return 0 }
  setTimeout (run: () => void): () => void {
    this.due.add(run)
    return () => { this.due.delete(run) }
  }

  fire (): void {
    const due = [...this.due]
    this.due.clear()
    for (const run of due) run()
  }
}

describe('peers remembered', () => {
  let directory: string
  let inner: LevelDatastore
  let clock: HandClock
  let store: RememberedPeers
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'shoal-remembered-'))
    inner = new LevelDatastore(join(directory, 'level'))
    clock = new HandClock()
    store = new RememberedPeers(inner, { clock, logger: silentLogger })
    await store.open()
  })
  afterEach(async () => {
    await store.close()
    await rm(directory, { recursive: true })
  })
  const onDisk = async (key: Key): Promise<boolean> => await inner.has(key)

  it('are there at once, and on disk a moment later, all together', async () => {
    for (const round of ['first', 'second']) for (let peer = 0; peer < 10; peer++) await store.put(keyOf(peer), bytes(`${round} ${peer}`))
    assert.equal(text(await store.get(keyOf(3))), 'second 3')
    assert.ok(await store.has(keyOf(3)))
    assert.ok(!await onDisk(keyOf(3)))
    assert.equal(clock.due.size, 1)
    clock.fire()
    const found: string[] = []
    for await (const { value } of store.query({ prefix: '/peers/' })) found.push(text(value))
    assert.deepEqual(found.sort(), Array.from({ length: 10 }, (_, peer) => `second ${peer}`))
    assert.ok(await onDisk(keyOf(3)))
    assert.equal(clock.due.size, 0)
  })

  it('are read from the disk once, and asked of it when they are not there', async () => {
    await inner.put(keyOf('old'), bytes('of a former life'))
    assert.equal(text(await store.get(keyOf('old'))), 'of a former life')
    await inner.delete(keyOf('old'))
    assert.equal(text(await store.get(keyOf('old'))), 'of a former life')
    await assert.rejects(async () => await store.get(keyOf('unknown')), { name: 'NotFoundError' })
    assert.ok(!await store.has(keyOf('unknown')))
  })

  it('are written when it closes, and by a query before that', async () => {
    await store.put(keyOf(1), bytes('one'))
    const keys: string[] = []
    for await (const key of store.queryKeys({})) keys.push(key.toString())
    assert.deepEqual(keys, ['/peers/1'])
    await store.put(keyOf(2), bytes('two'))
    await store.close()
    assert.equal(clock.due.size, 0)
    await assert.rejects(async () => await store.put(keyOf(3), bytes('three')))
    assert.equal(clock.due.size, 0)
    store = new RememberedPeers(inner, { clock, logger: silentLogger })
    await store.open()
    assert.equal(text(await store.get(keyOf(2))), 'two')
  })

  it('are forgotten when they are deleted, also while they are being written', async () => {
    await store.put(keyOf(1), bytes('one'))
    clock.fire()
    const reading = store.get(keyOf(1))
    await Promise.all([store.delete(keyOf(1)), store.get(keyOf(1)).catch(() => undefined), reading])
    await assert.rejects(async () => await store.get(keyOf(1)), { name: 'NotFoundError' })
    assert.ok(!await onDisk(keyOf(1)))
  })

  it('are as they were last when the same store is opened again', async () => {
    await store.put(keyOf(1), bytes('before'))
    await store.close()
    await store.open()
    assert.equal(text(await store.get(keyOf(1))), 'before')
    await store.put(keyOf(1), bytes('after'))
    assert.equal(text(await store.get(keyOf(1))), 'after')
    await store.close()
    await inner.open()
    assert.equal(text(await inner.get(keyOf(1))), 'after')
  })

  it('are written with what changed while it closes', async () => {
    await store.put(keyOf(1), bytes('old'))
    const closing = store.close()
    await store.put(keyOf(1), bytes('new'))
    await closing
    assert.equal(clock.due.size, 0)
    await inner.open()
    assert.equal(text(await inner.get(keyOf(1))), 'new')
  })

  it('are bounded in memory, at once or one by one, and none is lost', async () => {
    const peers = Array.from({ length: 3_000 }, (_, peer) => peer)
    await Promise.all(peers.map(async peer => await store.put(keyOf(peer), bytes(`peer ${peer}`))))
    assert.ok(await onDisk(keyOf(2_999)), 'too many to keep unwritten')
    clock.fire()
    for (const peer of peers) await store.put(keyOf(3_000 + peer), bytes(`peer ${3_000 + peer}`))
    for (const peer of [0, 1_500, 2_999, 5_999]) assert.equal(text(await store.get(keyOf(peer))), `peer ${peer}`)
    await store.close()
    await inner.open()
    for (const peer of [0, 1_023, 3_000, 5_999]) assert.equal(text(await inner.get(keyOf(peer))), `peer ${peer}`)
  })

  it('hold on to no memory but their own', async () => {
    const slab = new Uint8Array(64 * 1024)
    slab.set(bytes('small'))
    await store.put(keyOf(1), slab.subarray(0, 5))
    slab.fill(0)
    const kept = await store.get(keyOf(1))
    assert.equal(text(kept), 'small')
    assert.equal(kept.buffer.byteLength, 5)
    await store.put(keyOf(2), slab)
    assert.ok(await onDisk(keyOf(2)), 'what is large goes to the disk')
  })

  it('are kept when the disk takes nothing, and written when it does again', async () => {
    const batch = inner.batch.bind(inner)
    inner.batch = () => ({ put: () => undefined, delete: () => undefined, commit: async () => { await Promise.reject(new Error('no space left')) } })
    await store.put(keyOf(1), bytes('one'))
    clock.fire()
    await new Promise(resolve => { setImmediate(resolve) })
    assert.equal(text(await store.get(keyOf(1))), 'one')
    inner.batch = batch
    await store.put(keyOf(2), bytes('two'))
    await assert.doesNotReject(async () => { for await (const _ of store.query({ prefix: '/peers/' })) continue })
    assert.ok(await onDisk(keyOf(1)) && await onDisk(keyOf(2)))
  })

  it('are all that is kept back: what else is written goes to the disk', async () => {
    const key = new Key('/dht/provider/key/peer')
    await store.put(key, bytes('when'))
    assert.ok(await onDisk(key))
    assert.equal(text(await store.get(key)), 'when')
    await store.delete(key)
    assert.ok(!await store.has(key))
  })
})
