import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import fc from 'fast-check'
import { seededRandom, silentLogger } from '../../../src/base/index.ts'
import { AnnounceQueue } from '../../../src/discovery/announce-queue.ts'
import { kadIdOfDigest } from '../../../src/discovery/dht-key.ts'

const LOW = new Uint8Array(32)
const HIGH = new Uint8Array(32).fill(255)
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')

describe('the announce queue', () => {
  let directory: string
  before(async () => { directory = await mkdtemp(join(tmpdir(), 'shoal-queue-')) })
  after(async () => { await rm(directory, { recursive: true, force: true }) })

  it('answers as a plain list would, whatever is done to it', () => {
    const random = seededRandom(7)
    const digests = Array.from({ length: 40 }, () => random.bytes(32))
    const some = fc.array(fc.integer({ min: 0, max: 39 }), { maxLength: 12 })
    const time = fc.integer({ min: 0, max: 100 })
    const step = fc.oneof(
      fc.record({ kind: fc.constant('add' as const), which: some, at: time }),
      fc.record({ kind: fc.constant('remove' as const), which: some, at: time }),
      fc.record({ kind: fc.constant('done' as const), which: some, at: time }),
      fc.record({ kind: fc.constant('clamp' as const), which: some, at: time })
    )
    fc.assert(fc.property(fc.array(step, { maxLength: 12 }), time, (steps, horizon) => {
      const queue = new AnnounceQueue(undefined, silentLogger)
      const model = new Map<number, number>()
      for (const { kind, which, at } of steps) {
        const chosen = which.map(i => digests[i] as Uint8Array)
        if (kind === 'add') {
          queue.add(chosen, at)
          for (const i of which) if (!model.has(i)) model.set(i, at)
        } else if (kind === 'remove') {
          queue.remove(chosen)
          for (const i of which) model.delete(i)
        } else if (kind === 'done') {
          queue.done(chosen.map(digest => ({ digest, kadId: kadIdOfDigest(digest) })), () => at)
          for (const i of which) if (model.has(i)) model.set(i, at)
        } else {
          queue.clamp(at, 3)
          for (const [i, due] of model) if (due > at) model.set(i, 3)
        }
      }
      const due = [...model].filter(([, at]) => at <= horizon).map(([i]) => hex(kadIdOfDigest(digests[i] as Uint8Array))).sort()
      assert.deepEqual(queue.page(LOW, HIGH, horizon, 100).map(key => hex(key.kadId)), due)
      assert.deepEqual(queue.page(LOW, HIGH, horizon, 3).map(key => hex(key.kadId)), due.slice(0, 3))
      const walked: string[] = []
      for (let key = queue.next(undefined, horizon); key !== undefined; key = queue.next(key.kadId, horizon)) {
        walked.push(hex(key.kadId))
        assert.deepEqual(key.kadId, kadIdOfDigest(key.digest))
      }
      assert.deepEqual(walked, due)
      assert.deepEqual(queue.counts(horizon), { keys: model.size, backlog: due.length, earliestDue: model.size === 0 ? undefined : Math.min(...model.values()) })
      for (const [i, digest] of digests.entries()) assert.equal(queue.has(digest), model.has(i))
      queue.close()
    }))
  })

  it('is still there after a restart, and begun anew when the file is damaged', async () => {
    const file = join(directory, 'announce.sqlite')
    const digests = [1, 2, 3].map(i => new Uint8Array(32).fill(i))
    const first = new AnnounceQueue(file, silentLogger)
    first.add(digests, 5)
    first.close()
    const second = new AnnounceQueue(file, silentLogger)
    assert.deepEqual(second.counts(5), { keys: 3, backlog: 3, earliestDue: 5 })
    second.close()
    await writeFile(file, 'this is no database, but it is long enough to be looked at as one'.repeat(100))
    const warnings: string[] = []
    const third = new AnnounceQueue(file, { ...silentLogger, warn: (_details, message) => { warnings.push(message) } })
    assert.equal(third.keys, 0)
    third.add(digests, 5)
    assert.equal(third.keys, 3)
    assert.equal(warnings.length, 1)
    third.close()
  })

  it('tells what failed, and counts on as before, when SQLite has rolled back by itself', () => {
    const file = join(directory, 'failing.sqlite')
    const random = seededRandom(8)
    const [first, second] = [random.bytes(32), random.bytes(32)]
    const queue = new AnnounceQueue(file, silentLogger)
    try {
      queue.add([first], 1)
      // As it does where the volume takes no writes any more.
      const other = new DatabaseSync(file)
      for (const change of ['INSERT', 'DELETE', 'UPDATE']) other.exec(`CREATE TRIGGER fail_${change} BEFORE ${change} ON announced BEGIN SELECT RAISE(ROLLBACK, 'the volume is read-only'); END`)
      other.close()
      for (const change of [() => { queue.add([second], 2) }, () => { queue.remove([first]) }, () => { queue.done([{ digest: first, kadId: kadIdOfDigest(first) }], () => 3) }]) {
        assert.throws(change, /the volume is read-only/)
        assert.deepEqual(queue.counts(1), { keys: 1, backlog: 1, earliestDue: 1 })
      }
    } finally {
      queue.close()
    }
  })
})
