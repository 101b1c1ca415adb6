import assert from 'node:assert/strict'
import { Bitfield } from '../../../src/base/index.ts'
import { heardAtOnce } from '../../../src/replication/service.ts'
import type { ReplicaMessage } from '../../../src/replication/types.ts'
import { ReplicaBench, policyOf, proofOf } from '../../support/replica-bench.ts'

type State = Extract<ReplicaMessage, { type: 'state' }>

const SHARDS = 100

/** How often a method is called, of all objects of a class. */
function countCalls (prototype: object, name: string): { counted: { calls: number }, restore: () => void } {
  const original = Object.getOwnPropertyDescriptor(prototype, name)
  if (original === undefined) throw new Error(`there is no ${name}`)
  const method = original.value as (...given: unknown[]) => unknown
  const counted = { calls: 0 }
  Object.defineProperty(prototype, name, { ...original, value (...given: unknown[]) { counted.calls++; return method.apply(this, given) } })
  return { counted, restore: () => { Object.defineProperty(prototype, name, original) } }
}

/** A node with so many models that it shares with three others, who acknowledge and prove all. */
class Shared {
  readonly models: string[]
  readonly peers = ['a', 'b', 'c']
  readonly bench: ReplicaBench
  readonly said: Array<{ to: string, state: State }> = []
  acknowledges = true

  constructor (models: number, shards = SHARDS) {
    this.models = Array.from({ length: models }, (_, i) => `m${i}`)
    this.bench = new ReplicaBench({ shards, models: this.models, policies: this.models.map(model => policyOf({ model })) })
    this.bench.answers = (to, message) => {
      if (message.type === 'challenge') return [proofOf(message, to)]
      if (message.type !== 'state') return []
      this.said.push({ to, state: message })
      const isWhole = message.part === undefined || message.part.number === message.part.of - 1
      return this.acknowledges && message.wantsReply && isWhole ? [this.bench.state(to, [], { ackIncarnation: message.incarnation, ackVersion: message.version })] : []
    }
    for (const id of this.peers) this.bench.says(id, this.models.map(model => ({ model, committed: this.bench.all })))
  }

  /** Until each has acknowledged all and shown all. */
  settle (): void {
    const last = (): State | undefined => this.said.at(-1)?.state
    for (let second = 0; second < 100; second++) {
      this.bench.tick()
      const { incarnation, version } = last() ?? { incarnation: '', version: 0 }
      for (const id of this.peers) this.bench.says(id, [], { ackIncarnation: incarnation, ackVersion: version })
    }
    this.said.length = 0
  }

  /** How often `work` reads a bit of what others claim: each look at a shard does for each claim. */
  reads (work: () => void): number {
    const { counted, restore } = countCalls(Bitfield.prototype, 'has')
    try {
      work()
    } finally {
      restore()
    }
    return counted.calls
  }
}

describe('a node of many models', () => {
  it('looks at a part of them in each tick, and at all in turn', () => {
    const shared = new Shared(200)
    const { bench } = shared
    const each = Array.from({ length: 30 }, () => shared.reads(() => { bench.tick() }))
    assert.ok(Math.max(...each) < 100_000, `${Math.max(...each)} claims in one tick`)
    shared.settle()
    assert.deepEqual(new Set(shared.models.map(model => bench.replicator.shards(model, bench.now)?.[SHARDS - 1]?.replicas)), new Set([4]))
  })

  it('looks at what changed, and at nothing else that is not due', () => {
    const shared = new Shared(500, 20)
    const { bench } = shared
    shared.settle()
    const quiet = shared.reads(() => { bench.says('nobody', []); bench.replicator.tick(bench.now) })
    assert.ok(quiet < 10_000, `${quiet} claims for nothing`)
    bench.replicator.lost('m0', 3, bench.now)
    bench.replicator.tick(bench.now)
    assert.equal(bench.replicator.models(bench.now).find(({ model }) => model === 'm0')?.deficitShards, 0, 'three others have it')
    bench.replicator.held('m0', 3, bench.now)
  })

  it('does what is due of a model at once, whatever else there is to look at', () => {
    const shared = new Shared(300)
    const { bench } = shared
    shared.settle()
    bench.reachable = ['a', 'b', 'c', 'free']
    bench.answers = (to, message) => message.type === 'challenge' ? [proofOf(message, to)] : message.type === 'state' ? [bench.state(to, [], { ackIncarnation: message.incarnation, ackVersion: message.version })] : []
    for (const id of shared.peers) bench.says(id, [{ model: 'm299' }])
    bench.run(30)
    assert.ok(bench.notes.some(note => note.type === 'offered' && note.model === 'm299'))
  })

  it('tells of what there is without a look at all of it', () => {
    const shared = new Shared(300)
    const { bench } = shared
    shared.settle()
    let found = 0
    const reads = shared.reads(() => { found = bench.replicator.models(bench.now).length })
    assert.equal(found, 300)
    assert.ok(reads < 150_000, `${reads} claims`)
    bench.replicator.lost('m7', 3, bench.now)
    bench.tick(0)
    for (const id of shared.peers) bench.says(id, [{ model: 'm7' }])
    assert.equal(bench.replicator.models(bench.now).find(({ model }) => model === 'm7')?.deficitShards, SHARDS)
  })
})

describe('what is said of many models', () => {
  it('is what changed, to those who have to do with it', () => {
    const shared = new Shared(500, 10)
    const { bench, said } = shared
    bench.says('d', [{ model: 'm1', committed: bench.all }])
    shared.settle()
    bench.replicator.lost('m0', 0, bench.now)
    bench.replicator.held('m0', 0, bench.now)
    bench.run(2)
    assert.deepEqual(said.map(({ to }) => to).sort(), ['a', 'b', 'c'])
    assert.deepEqual(said.map(({ state }) => state.models.map(({ model }) => model)), [['m0'], ['m0'], ['m0']])
    assert.ok(said.every(({ state }) => state.part === undefined), 'acknowledged as a whole')
  })

  it('is said again until it is acknowledged, together with what changed since', () => {
    const shared = new Shared(500, 10)
    const { bench, said } = shared
    shared.settle()
    const changes = (model: string): void => { bench.replicator.lost(model, 0, bench.now); bench.replicator.held(model, 0, bench.now) }
    shared.acknowledges = false
    changes('m0')
    bench.run(2)
    changes('m1')
    bench.run(2)
    const toA = said.filter(({ to }) => to === 'a').map(({ state }) => state)
    assert.deepEqual(toA.at(-1)?.models.map(({ model }) => model).sort(), ['m0', 'm1'])
    const { incarnation, version } = toA.at(-1) as State
    for (const id of shared.peers) bench.says(id, [], { ackIncarnation: incarnation, ackVersion: version })
    said.length = 0
    bench.run(120)
    assert.deepEqual(said, [])
  })

  it('is all of it to who started anew, whatever an earlier life of it acknowledges late', () => {
    const shared = new Shared(10)
    const { bench, said } = shared
    shared.settle()
    bench.replicator.lost('m0', 0, bench.now)
    bench.replicator.held('m0', 0, bench.now)
    shared.acknowledges = false
    bench.run(2)
    const [{ incarnation, version }] = said.map(({ state }) => state).slice(-1) as [State]
    said.length = 0
    // It has heard that m0 changed, and nothing else in this life.
    bench.says('a', shared.models.map(model => ({ model, committed: bench.all })), { incarnation: 'a again', ackIncarnation: incarnation, ackVersion: version })
    bench.run(5)
    assert.equal(said.filter(({ to }) => to === 'a').at(-1)?.state.models.length, 10)
  })

  it('names in an answer what was asked about', () => {
    const shared = new Shared(100, 10)
    const { bench, said } = shared
    shared.settle()
    bench.says('b', [{ model: 'm5', committed: bench.all }], { wantsReply: true })
    bench.run(2)
    assert.deepEqual(said.map(({ to, state }) => [to, state.models.map(({ model }) => model)]), [['b', ['m5']]])
  })

  it('goes in parts of which some are sent at a time, all of one version', () => {
    const shared = new Shared(1_500, 1)
    const { bench, said } = shared
    shared.acknowledges = false
    bench.tick()
    assert.ok(said.length <= 8 + shared.peers.length, `${said.length} in one tick`)
    bench.run(10, second => { if (second % 2 === 0) { bench.replicator.lost(`m${second}`, 0, bench.now); bench.replicator.held(`m${second}`, 0, bench.now) } })
    const toA = said.filter(({ to }) => to === 'a').map(({ state }) => state)
    const of = toA[0]?.part?.of
    assert.equal(of, 64)
    assert.deepEqual(new Set(toA.map(({ version }) => version)).size, 1)
    assert.equal(new Set(toA.map(({ part }) => part?.number)).size, of)
    assert.equal(new Set(toA.flatMap(({ models }) => models.map(({ model }) => model))).size, 1_500)
  })

  it('costs nothing but itself when it is empty', () => {
    const shared = new Shared(2_000, 1)
    const { bench } = shared
    bench.tick()
    const { counted, restore } = countCalls(Map.prototype, 'get')
    try {
      for (let i = 0; i < 100; i++) bench.says('nobody', [])
    } finally {
      restore()
    }
    assert.ok(counted.calls < 5_000, `${counted.calls} look-ups for 100 of them`)
  })
})

describe('a model of many holders that are gone', () => {
  it('is looked at without those nobody waits for, where enough others are up', () => {
    const bench = new ReplicaBench({ shards: 4, policies: [policyOf()] })
    const live = Array.from({ length: 6 }, (_, i) => `live ${i}`)
    const dead = Array.from({ length: 200 }, (_, i) => `dead ${i}`)
    for (const id of [...live, ...dead]) bench.says(id, [{ committed: bench.all }])
    bench.tick()
    for (const id of dead) bench.silent.add(id)
    const known = (): number => bench.holders().length
    bench.run(300)
    assert.equal(known(), 207, 'they may come back')
    bench.run(600)
    assert.equal(known(), 39)
  })
})

describe('what others say', () => {
  it('is dealt with some hundred models at a time, and one message at least', () => {
    const parts = Array.from({ length: 512 }, () => ({ weight: 33 }))
    assert.equal(heardAtOnce(parts), 15)
    assert.equal(heardAtOnce(parts.slice(0, 3)), 3)
    assert.equal(heardAtOnce([{ weight: 4_000 }, { weight: 1 }]), 1)
    assert.equal(heardAtOnce([]), 0)
  })
})
