import assert from 'node:assert/strict'
import { ReplicaBench, policyOf, proofOf } from '../../support/replica-bench.ts'
import type { ReplicaMessage } from '../../../src/replication/types.ts'

type Challenge = Extract<ReplicaMessage, { type: 'challenge' }>

const SHARDS = 64
/** A hard disk does some 120 reads a second, and a shard takes four. */
const READ_SHARD_MS = 4 / 120 * 1_000

/** This node, `a` and `b` hold all of so many models; nobody else is known. What `b` is asked waits until somebody answers it. */
class Holders {
  readonly models: string[]
  readonly bench: ReplicaBench
  readonly asked: Challenge[] = []

  constructor (models: number) {
    this.models = Array.from({ length: models }, (_, i) => `m${i}`)
    this.bench = new ReplicaBench({ shards: SHARDS, models: this.models, policies: this.models.map(model => policyOf({ model })), kept: true })
    this.bench.reachable = ['a', 'b', 'free']
    this.bench.answers = (to, message) => {
      const held = to === 'free' ? [] : this.#all
      if (message.type === 'state') return [this.bench.state(to, held, { incarnation: to === 'b' ? this.#life : to, ackIncarnation: message.incarnation, ackVersion: message.version })]
      if (message.type !== 'challenge') return []
      if (to === 'a') return [proofOf(message, to)]
      this.asked.push(message)
      return []
    }
    this.bench.says('a', this.#all)
    this.starts('b')
  }

  #life = ''
  get #all (): Array<{ model: string, committed: Uint8Array }> { return this.models.map(model => ({ model, committed: this.bench.all })) }

  /** `b` starts: nothing of what it showed before counts, and what it was asked before is forgotten. */
  starts (life: string): void {
    this.#life = life
    this.asked.length = 0
    this.bench.says('b', this.#all, { incarnation: life })
  }

  answer (challenge: Challenge): void { this.bench.replicator.receive('b', proofOf(challenge, 'b'), this.bench.now) }

  /** What `b` is asked it answers at once. */
  settle (): void {
    this.bench.run(20, () => { for (const challenge of this.asked.splice(0)) this.answer(challenge) })
    assert.equal(this.count('proven'), this.models.length * SHARDS)
  }

  /** Shards of which `b` is in this state. */
  count (state: string): number {
    return this.models.flatMap(model => this.bench.replicator.shards(model, this.bench.now) ?? []).filter(({ holders }) => holders.some(holder => holder.peerId === 'b' && holder.state === state)).length
  }

  get shardsAsked (): number { return this.asked.reduce((sum, { shards }) => sum + shards.length, 0) }
}

describe('challenges', () => {
  for (const askers of [2, 4]) {
    it(`are answered by a holder on a slow disk that ${askers} ask at once after its restart, and nothing of it is copied`, () => {
      const holders = new Holders(16)
      holders.settle()
      holders.starts('b again')
      let readyAt = holders.bench.now
      const due: Array<{ at: number, challenge: Challenge }> = []
      holders.bench.run(250, second => {
        for (const challenge of holders.asked.splice(0)) {
          assert.ok(due.length < 32, 'more than a holder lets wait')
          readyAt = Math.max(readyAt, holders.bench.now) + challenge.shards.length * READ_SHARD_MS * askers
          due.push({ at: readyAt, challenge })
        }
        while (due[0] !== undefined && due[0].at <= holders.bench.now) {
          holders.answer(due[0].challenge)
          due.shift()
        }
        if (second % 20 === 0) assert.equal(holders.count('failed'), 0)
      })
      assert.equal(holders.count('proven'), 16 * SHARDS)
      assert.deepEqual(holders.bench.offeredTo(), [])
    })
  }

  it('that are not answered at all are failures of all that is to be shown, after twice ten seconds', () => {
    const holders = new Holders(20)
    holders.settle()
    holders.starts('b again')
    holders.bench.run(19)
    assert.equal(holders.count('failed'), 0, 'each has its second chance')
    holders.bench.run(3)
    assert.equal(holders.count('failed'), 20 * SHARDS)
    // Its disk was mended.
    holders.bench.run(90, () => { for (const challenge of holders.asked.splice(0)) holders.answer(challenge) })
    assert.equal(holders.count('proven'), 20 * SHARDS)
  })

  it('of which one is lost are made again after ten seconds, and that is no failure', () => {
    const holders = new Holders(2)
    holders.bench.run(15, second => {
      const asked = holders.asked.splice(0)
      for (const challenge of second < 2 ? asked.slice(1) : asked) holders.answer(challenge)
      assert.equal(holders.count('failed'), 0)
    })
    holders.bench.run(10, () => { for (const challenge of holders.asked.splice(0)) holders.answer(challenge) })
    assert.equal(holders.count('proven'), 2 * SHARDS)
  })

  it('are given up when the one who was asked starts again, and made anew at once', () => {
    const holders = new Holders(1)
    holders.bench.run(3)
    assert.ok(holders.shardsAsked > 0)
    holders.starts('b again')
    holders.bench.run(10, () => { for (const challenge of holders.asked.splice(0)) holders.answer(challenge) })
    assert.equal(holders.count('proven'), SHARDS)
  })

  it('are no more than this node itself can check', () => {
    const holders = new Holders(32)
    holders.bench.reads = []
    let shards = 0
    holders.bench.run(100, () => {
      for (const challenge of holders.asked.splice(0)) {
        shards += challenge.shards.length
        holders.answer(challenge)
      }
    })
    assert.ok(shards <= 1_024, `${shards} wait for the disk`)
    for (const read of holders.bench.reads.splice(0)) read()
    holders.bench.reads = undefined
    holders.settle()
  })
})
