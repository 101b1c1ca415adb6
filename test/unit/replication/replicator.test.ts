import assert from 'node:assert/strict'
import { Bitfield, MiB, seededRandom } from '../../../src/base/index.ts'
import { challengeSeed } from '../../../src/replication/challenge.ts'
import { Replicator } from '../../../src/replication/replicator.ts'
import { defaultReplication } from '../../../src/replication/settings.ts'
import type { ModelClaim, PolicyRecord, PullJob, ReplicaMessage, ReplicaPorts, ReplicationEvent, ReplicationSettings } from '../../../src/replication/types.ts'

const encode = (record: Omit<PolicyRecord, 'bytes'>): PolicyRecord => ({ ...record, bytes: new TextEncoder().encode(JSON.stringify(record)) })
const policy = (over: Partial<PolicyRecord> = {}): PolicyRecord => encode({ model: 'm', min: 2, target: 3, max: 5, sequence: 1, publisher: 'publisher', ...over, bytes: undefined } as Omit<PolicyRecord, 'bytes'>)
const bits = (...set: number[]): Uint8Array => {
  const field = new Bitfield(2)
  for (const bit of set) field.set(bit)
  return field.bytes
}

/** A replicator of a model with two shards of 10 MiB, and what it did. The others are whoever is told of. */
class Bench {
  readonly sent: Array<{ to: string, message: ReplicaMessage }> = []
  readonly pulls: PullJob[] = []
  readonly notes: ReplicationEvent[] = []
  readonly saved: PolicyRecord[] = []
  readonly replicator: Replicator
  savePolicyFails = false
  saveFails = false
  readonly ledger = new Set<string>()
  diskFreeBytes = 1e15
  throwsOnReachable = false
  searches = 0
  reachable: string[] = []
  /** Last signs of life; of all others there is one each moment. */
  readonly heardAt = new Map<string, number>()
  /** What is asked of these gets lost. */
  readonly deaf = new Set<string>()
  now = 1_000_000
  #version = 0

  constructor (settings: Partial<ReplicationSettings> = {}, labels: Record<string, string> = {}, commitments: Array<{ model: string, shard: number }> = [], ledgerLostMs?: number, isHere = ledgerLostMs !== undefined) {
    for (const { model, shard } of commitments) this.ledger.add(`${model}/${shard}`)
    const ports: ReplicaPorts = {
      send: (to, message) => { this.sent.push({ to, message }) },
      heardAt: id => this.heardAt.get(id) ?? this.now,
      watch: () => undefined,
      reachable: () => {
        if (this.throwsOnReachable) throw new Error('a bug')
        return this.reachable
      },
      find: () => { this.searches++; return true },
      pull: job => { this.pulls.push(job) },
      cancel: () => undefined,
      prove: (_model, shards, nonce, done) => { done(shards.map(shard => new Uint8Array([shard, ...nonce]))) },
      scrub: () => undefined,
      save: ({ model, shards, committed }) => {
        if (this.saveFails) throw new Error('the disk is full')
        for (const shard of shards) {
          if (committed) this.ledger.add(`${model}/${shard}`)
          else this.ledger.delete(`${model}/${shard}`)
        }
      },
      savePolicies: ({ saved }) => {
        if (this.savePolicyFails) throw new Error('the disk is full')
        this.saved.push(...saved)
      },
      readPolicy: bytes => encode(JSON.parse(new TextDecoder().decode(bytes)) as Omit<PolicyRecord, 'bytes'>),
      diskFreeBytes: () => this.diskFreeBytes,
      note: event => { this.notes.push(event) }
    }
    this.replicator = new Replicator({ self: 'self', labels, settings: { ...defaultReplication, settleMs: 0, donateBytes: 100 * MiB, ...settings }, random: seededRandom(1), ports, commitments, policies: isHere && ledgerLostMs === undefined ? [policy()] : [], ledgerLostMs })
    if (isHere) this.has(false)
    this.replicator.start(this.now)
  }

  /** The model is here, all of it; `kept`: published or pinned. */
  has (kept: boolean): void { this.replicator.model({ cid: 'm', shardBytes: [10 * MiB, 10 * MiB], held: [0, 1], kept }, this.now) }

  tick (ms = 1_000): void {
    this.now += ms
    this.replicator.tick(this.now)
    // Whoever is challenged has what it says.
    for (const { to, message } of this.take('challenge')) {
      if (this.deaf.has(to)) continue
      this.replicator.receive(to, { type: 'proof', id: message.id, model: message.model, digests: message.shards.map(shard => new Uint8Array([shard, ...challengeSeed(message.nonce, 'self', to)])) }, this.now)
    }
  }

  says (from: string, claim: Partial<ModelClaim>, state: Partial<Extract<ReplicaMessage, { type: 'state' }>> = {}): void {
    this.replicator.receive(from, {
      type: 'state',
      incarnation: from,
      version: ++this.#version,
      ackIncarnation: '',
      ackVersion: 0,
      wantsReply: false,
      draining: false,
      leaving: false,
      freeBytes: 1_000 * MiB,
      labels: {},
      models: [{ model: 'm', shards: 2, policies: [], committed: bits(), pending: bits(), cached: bits(), members: [], ...claim }],
      ...state
    }, this.now)
  }

  /** Of what is here already: it is promised at once. */
  offers (from: string, shard: number): void {
    this.replicator.receive(from, { type: 'offer', id: `offer ${shard}`, model: 'm', shard, shards: 2, bytes: 10 * MiB, urgent: false, policies: [policy().bytes], holders: [] }, this.now)
  }

  /** What was sent of this type, once. */
  take<Type extends ReplicaMessage['type']> (type: Type): Array<{ to: string, message: Extract<ReplicaMessage, { type: Type }> }> {
    const taken = this.sent.filter((one): one is { to: string, message: Extract<ReplicaMessage, { type: Type }> } => one.message.type === type)
    for (const one of taken) this.sent.splice(this.sent.indexOf(one), 1)
    return taken
  }
}

describe('the replicator', () => {
  it('puts no policy in force that it could not save, and takes it when it can', () => {
    const bench = new Bench()
    bench.has(false)
    bench.savePolicyFails = true
    bench.says('peer', { policies: [policy().bytes], committed: bits(0) })
    assert.equal(bench.replicator.policyOf('m')?.target, 0)
    assert.equal(bench.replicator.shards('m', bench.now)?.[0]?.holders.length, 2, 'what else was said is learnt')
    assert.throws(() => { bench.replicator.setPolicy(policy(), bench.now) }, /full/)
    assert.equal(bench.replicator.policyOf('m')?.target, 0)
    bench.savePolicyFails = false
    bench.says('peer', { policies: [policy().bytes], committed: bits(0) })
    assert.equal(bench.replicator.policyOf('m')?.target, 3)
    assert.equal(bench.saved.length, 1)
  })

  it('tells who has some of a model that it has nothing of it, and is silent to who has nothing either', () => {
    const bench = new Bench()
    bench.says('holder', { committed: bits(0) })
    bench.tick()
    assert.deepEqual(bench.take('state').map(({ to, message }) => [to, message.models.map(({ model }) => model)]), [['holder', ['m']]])
    bench.says('other', {})
    for (let i = 0; i < 10; i++) bench.tick()
    assert.deepEqual(bench.take('state').filter(({ to }) => to === 'other'), [])
  })

  it('tells a peer it is already in touch with of a model that this is found to have, also when an older state is acknowledged after that', () => {
    const bench = new Bench()
    bench.has(true)
    assert(bench.replicator.setPolicy(policy(), bench.now))
    bench.replicator.found('m', ['peer'], bench.now)
    bench.tick()
    const [told] = bench.take('state')
    assert(told !== undefined)
    bench.replicator.model({ cid: 'n', shardBytes: [MiB], held: [0], kept: true }, bench.now)
    assert(bench.replicator.setPolicy(policy({ model: 'n' }), bench.now))
    bench.tick()
    const before = bench.take('state').at(-1)?.message ?? told.message
    bench.replicator.found('n', ['peer'], bench.now)
    bench.says('peer', { committed: bits(0) }, { ackIncarnation: before.incarnation, ackVersion: before.version })
    for (let i = 0; i < 5; i++) bench.tick()
    assert(bench.take('state').some(({ to, message }) => to === 'peer' && message.models.some(({ model }) => model === 'n')))
  })

  it('repairs although somebody says again and again that one has it who says that it has not', () => {
    const bench = new Bench()
    bench.reachable = ['free']
    bench.has(true)
    bench.replicator.setPolicy(policy(), bench.now)
    bench.replicator.found('m', [], bench.now)
    bench.says('a', { committed: bits(0, 1) })
    for (let i = 0; i < 20; i++) {
      bench.says('free', {}, { models: [] })
      bench.says('ghost', {})
      bench.says('gossip', { cached: bits(0), members: ['ghost'] })
      bench.tick(5_000)
    }
    assert.ok(bench.take('offer').some(({ to }) => to === 'free'))
  })

  it('does not go on believing what a peer said in an earlier life, when it is silent about it in this one', () => {
    const bench = new Bench()
    const holders = (): string[] | undefined => bench.replicator.shards('m', bench.now)?.[0]?.holders.map(({ peerId }) => peerId)
    bench.has(true)
    bench.replicator.setPolicy(policy(), bench.now)
    bench.says('a', { committed: bits(0, 1) })
    bench.tick()
    assert.deepEqual(holders(), ['self', 'a'])
    bench.says('a', {}, { incarnation: 'a again', models: [] })
    bench.tick()
    assert.deepEqual(holders(), ['self', 'a'], 'it may not have heard yet that somebody wants to know')
    bench.tick(10_000)
    bench.says('a', {}, { incarnation: 'a again', models: [] })
    assert.deepEqual(holders(), ['self'])
  })

  it('goes on at the next tick with what an error cut short', () => {
    const bench = new Bench()
    bench.has(true)
    bench.replicator.setPolicy(policy(), bench.now)
    bench.replicator.found('m', [], bench.now)
    bench.throwsOnReachable = true
    for (let i = 0; i < 3; i++) assert.throws(() => { bench.tick() }, /a bug/, 'it is tried again at each tick')
    bench.throwsOnReachable = false
    bench.tick()
  })

  it('counts on with the sequence of its policies after a model was removed', () => {
    const bench = new Bench()
    bench.has(true)
    for (let sequence = 1; sequence <= 5; sequence++) bench.replicator.setPolicy(policy({ publisher: 'self', sequence }), bench.now)
    bench.replicator.forget('m', bench.now)
    for (let minute = 0; minute < 12; minute++) bench.tick(60_000)
    assert.equal(bench.replicator.policyOf('m'), undefined, 'nothing is kept of it')
    assert.equal(bench.replicator.nextSequence('m', 1), 6)
    assert.equal(bench.replicator.nextSequence('m', 1_700_000_000), 1_700_000_000, 'higher than what a lost ledger may have had')
    bench.has(true)
    assert.equal(bench.replicator.policyOf('m')?.target, 3)
  })

  it('finds the same policy in whatever order the records came', () => {
    const records = [policy({ publisher: 'a', max: 3 }), policy({ publisher: 'b', max: 5 }), policy({ publisher: 'c', max: 5, min: 1 }), policy({ publisher: 'd', min: 1, target: 2, max: 9 })]
    for (const order of [records, [...records].reverse()]) {
      const bench = new Bench()
      bench.has(true)
      for (const record of order) bench.replicator.setPolicy(record, bench.now)
      assert.deepEqual(bench.replicator.policyOf('m'), { min: 2, target: 3, max: 5 })
    }
  })

  it('goes on wanting what is pinned when sixteen made-up publishers ask for more of it and then for nothing', () => {
    const bench = new Bench()
    bench.has(true)
    bench.says('peer', { policies: [policy().bytes], committed: bits(0, 1) })
    bench.tick()
    bench.has(false)
    const records = (target: number, sequence: number): Uint8Array[] => Array.from({ length: 16 }, (_, i) => policy({ publisher: `made up ${i}`, min: 0, target, max: target, sequence }).bytes)
    bench.says('attacker', { policies: records(64, 1) })
    bench.says('attacker', { policies: records(0, 2) })
    for (let i = 0; i < 30; i++) bench.tick()
    assert.equal(bench.replicator.policyOf('m')?.target, 3)
    assert.equal(bench.ledger.size, 2)
    assert.ok(bench.replicator.keeps('m'))
  })

  /** Three holders in zone a, this one among them; the fourth, in zone b, has none of it, or is not known. */
  const crowded = (kept = false, elsewhere = true): Bench => {
    const bench = new Bench({ trimEveryMs: 0 }, { zone: 'a' })
    bench.has(kept)
    bench.replicator.setPolicy(policy(), bench.now)
    bench.replicator.drain(false, bench.now)
    for (const peer of ['a1', 'a2']) bench.says(peer, { policies: [policy().bytes], committed: bits(0, 1) }, { labels: { zone: 'a' } })
    if (elsewhere) bench.says('b1', {}, { labels: { zone: 'b' } })
    return bench
  }
  /** This node promises its part as well, and the proofs of the others are in. */
  const settle = (bench: Bench): void => {
    for (let i = 0; i < 5; i++) bench.tick()
  }
  const promised = (bench: Bench, shard: number): boolean =>
    bench.replicator.shards('m', bench.now)?.[shard]?.holders.some(({ peerId, state }) => peerId === 'self' && state === 'proven') === true
  /** Everybody keeps what he has; the answers to `release`. */
  const keep = (bench: Bench, ok = true): number => {
    const asked = bench.take('release')
    for (const { to, message } of asked) bench.replicator.receive(to, { type: 'keep', id: message.id, model: 'm', shard: message.shard, ok }, bench.now)
    return asked.length
  }

  it('lets go of what a copy in another zone made redundant, once that is proven and enough others keep theirs', () => {
    const bench = crowded(true)
    settle(bench)
    bench.replicator.model({ cid: 'm', shardBytes: [10 * MiB, 10 * MiB], held: [0, 1], kept: false }, bench.now)
    bench.tick()
    assert.ok(promised(bench, 0))
    assert.equal(bench.take('release').length, 0, 'nothing was made yet')
    bench.says('b1', { committed: bits(0, 1) }, { labels: { zone: 'b' } })
    let asked = 0
    for (let i = 0; i < 1_500 && promised(bench, 0); i++) {
      bench.tick()
      asked += keep(bench)
    }
    assert.ok(asked >= 3)
    assert.ok(!promised(bench, 0))
    assert.equal(bench.replicator.shards('m', bench.now)?.[0]?.replicas, 3)
    for (let i = 0; i < 1_000; i++) { bench.tick(); keep(bench) }
    assert.equal(bench.notes.filter(note => note.type === 'released').length, 2, 'one of each shard, and no more')
    assert.equal(bench.take('offer').filter(({ to }) => to !== 'b1').length, 0)
  })

  it('lets go of it also when it hears of the other zone with the copy that was made there', () => {
    const bench = crowded(true, false)
    settle(bench)
    bench.replicator.model({ cid: 'm', shardBytes: [10 * MiB, 10 * MiB], held: [0, 1], kept: false }, bench.now)
    bench.tick()
    assert.ok(promised(bench, 0))
    bench.says('b1', { committed: bits(0, 1) }, { labels: { zone: 'b' } })
    for (let i = 0; i < 1_500 && (promised(bench, 0) || promised(bench, 1)); i++) { bench.tick(); keep(bench) }
    assert.deepEqual(bench.replicator.shards('m', bench.now)?.map(({ replicas }) => replicas), [3, 3])
  })

  it('keeps what is published here, and a surplus that no spread made', () => {
    const published = crowded(true)
    settle(published)
    published.says('b1', { committed: bits(0, 1) }, { labels: { zone: 'b' } })
    for (let i = 0; i < 1_000; i++) { published.tick(); keep(published) }
    assert.ok(promised(published, 0))

    const bench = new Bench({ trimEveryMs: 0 }, { zone: 'a' })
    bench.has(true)
    bench.replicator.setPolicy(policy(), bench.now)
    for (const [peer, zone] of [['a1', 'a'], ['b1', 'b'], ['b2', 'b']] as const) bench.says(peer, { policies: [policy().bytes], committed: bits(0, 1) }, { labels: { zone } })
    settle(bench)
    bench.replicator.model({ cid: 'm', shardBytes: [10 * MiB, 10 * MiB], held: [0, 1], kept: false }, bench.now)
    for (let i = 0; i < 1_000; i++) { bench.tick(); keep(bench) }
    assert.ok(promised(bench, 0), 'four of three to five')
  })

  it('keeps a surplus that somebody made in another zone for reasons of his own', () => {
    /** The others say what they have, and then one in zone b that he has it, too; says how many there are in the end. */
    const replicas = (others: string[], change: (bench: Bench) => void, target = 3): number => {
      const bench = new Bench({ trimEveryMs: 0 }, { zone: 'a' })
      bench.has(true)
      const first = policy({ target, min: Math.min(2, target) })
      bench.replicator.setPolicy(first, bench.now)
      for (const peer of others) bench.says(peer, { policies: [first.bytes], committed: bits(0, 1) }, { labels: { zone: 'a' } })
      settle(bench)
      bench.replicator.model({ cid: 'm', shardBytes: [10 * MiB, 10 * MiB], held: [0, 1], kept: false }, bench.now)
      settle(bench)
      change(bench)
      settle(bench)
      bench.says('b1', { committed: bits(0, 1) }, { labels: { zone: 'b' } })
      for (let i = 0; i < 1_500; i++) { bench.tick(); keep(bench) }
      return bench.replicator.shards('m', bench.now)?.[0]?.replicas ?? 0
    }
    assert.equal(replicas(['a1', 'a2'], bench => { bench.replicator.setPolicy(policy({ target: 2, sequence: 2 }), bench.now) }), 4, 'the target was lowered before')
    assert.equal(replicas(['a1', 'a2', 'a3'], () => undefined), 5, 'there were more than enough in zone a')
    assert.equal(replicas([], bench => { bench.says('a1', { policies: [], committed: bits(0, 1) }, { labels: { zone: 'a' } }) }, 1), 3, 'one is enough, and always in one zone')
  })

  it('does not let go when nobody of the other zone promises', () => {
    const bench = crowded(true)
    bench.says('a3', { policies: [policy().bytes], committed: bits() }, { labels: { zone: 'a' } })
    settle(bench)
    bench.replicator.model({ cid: 'm', shardBytes: [10 * MiB, 10 * MiB], held: [0, 1], kept: false }, bench.now)
    bench.tick()
    bench.says('b1', { committed: bits(0, 1) }, { labels: { zone: 'b' } })
    bench.says('a3', { committed: bits(0, 1) }, { labels: { zone: 'a' } })
    let asked = 0
    for (let i = 0; i < 1_500; i++) {
      bench.tick()
      for (const { to, message } of bench.take('release')) {
        asked++
        bench.replicator.receive(to, { type: 'keep', id: message.id, model: 'm', shard: message.shard, ok: to !== 'b1' }, bench.now)
      }
    }
    assert.ok(asked > 0)
    assert.ok(promised(bench, 0) && promised(bench, 1))
  })

  /** A donor of 22 MiB that holds 20, with three others that hold the same, and one that holds nothing and has `free`. */
  const full = (free: number, over: Partial<ReplicationSettings> = {}): Bench => {
    const bench = new Bench({ donateBytes: 22 * MiB, trimEveryMs: 0, ...over })
    bench.reachable = ['roomy']
    bench.has(true)
    bench.replicator.setPolicy(policy(), bench.now)
    for (const peer of ['p1', 'p2']) bench.says(peer, { policies: [policy().bytes], committed: bits(0, 1) }, { freeBytes: 0 })
    bench.says('roomy', { cached: bits() }, { freeBytes: free })
    settle(bench)
    bench.replicator.model({ cid: 'm', shardBytes: [10 * MiB, 10 * MiB], held: [0, 1], kept: false }, bench.now)
    return bench
  }
  /** What is offered is taken, fetched and proven; says how many offers there were. */
  const serve = (bench: Bench, ticks: number): number => {
    let offers = 0
    const has = new Set<number>()
    for (let i = 0; i < ticks; i++) {
      bench.tick()
      for (const { to, message } of bench.take('offer')) {
        offers++
        has.add(message.shard)
        bench.replicator.receive(to, { type: 'accept', id: message.id, model: 'm', shard: message.shard }, bench.now)
        bench.says(to, { committed: bits(...has) }, { freeBytes: (1_000 - 10 * has.size) * MiB })
        bench.replicator.receive(to, { type: 'commit', model: 'm', shard: message.shard }, bench.now)
      }
      if (i % 30 === 0) bench.says('roomy', { committed: bits(...has) }, { freeBytes: (1_000 - 10 * has.size) * MiB })
      keep(bench)
    }
    return offers
  }

  it('moves one shard after the other from a nearly full donor to one with far more space, and stops below the mark', () => {
    const bench = full(1_000 * MiB)
    assert.equal(serve(bench, 600), 1, 'after one of two it is half empty')
    assert.deepEqual(bench.notes.filter(note => note.type === 'released').length, 1)
    assert.equal(bench.replicator.committedBytes, 10 * MiB)
    for (const { replicas } of bench.replicator.shards('m', bench.now) ?? []) assert.equal(replicas, 3)
  })

  it('moves nothing to one that would not have twice its space afterwards, nor when that is switched off', () => {
    const little = full(33 * MiB)
    for (let i = 0; i < 300; i++) {
      little.tick()
      if (i % 30 === 0) little.says('roomy', {}, { freeBytes: 33 * MiB })
    }
    assert.equal(little.take('offer').length, 0)
    const off = full(1_000 * MiB, { rebalanceShare: 1 })
    assert.equal(serve(off, 300), 0)
  })

  it('mends a broken replica ever more rarely while that fails, and not at all while the disk is full', () => {
    const bench = new Bench()
    bench.has(true)
    bench.replicator.setPolicy(policy(), bench.now)
    bench.says('peer', { policies: [policy().bytes], committed: bits(0, 1) })
    settle(bench)
    const tries = (minutes: number): number => {
      bench.pulls.length = 0
      for (let i = 0; i < minutes * 60; i++) {
        bench.tick()
        if (bench.pulls.length > 0) bench.replicator.pulled('m', 0, false, bench.now)
      }
      return bench.pulls.length
    }
    bench.diskFreeBytes = 0
    bench.replicator.lost('m', 0, bench.now)
    assert.equal(tries(5), 0)
    bench.diskFreeBytes = 1e15
    const first = tries(10)
    assert.ok(first >= 4 && first <= 6, `${first} in ten minutes`)
    assert.ok(tries(30) <= 4)
    bench.replicator.held('m', 0, bench.now)
    bench.replicator.lost('m', 0, bench.now)
    assert.ok(tries(1) >= 1, 'another loss begins anew')
  })

  it('fetches what breaks again soon after it was mended ever more rarely, and at once what lasted', () => {
    const bench = new Bench()
    bench.has(true)
    bench.replicator.setPolicy(policy(), bench.now)
    bench.says('a', { committed: bits(0, 1) })
    bench.tick()
    const mends = (minutes: number): number => {
      let count = 0
      for (const until = bench.now + minutes * 60_000; bench.now < until;) {
        bench.tick()
        for (const { model, shard } of bench.pulls.splice(0)) {
          count++
          bench.replicator.pulled(model, shard, true, bench.now)
          bench.replicator.lost(model, shard, bench.now + 1_000)
        }
      }
      return count
    }
    bench.replicator.lost('m', 0, bench.now)
    const first = mends(10)
    assert.ok(first >= 4 && first <= 6, `${first} in ten minutes`)
    assert.ok(mends(60) <= 8)
    bench.replicator.held('m', 0, bench.now)
    bench.now += 10 * 60_000
    bench.replicator.lost('m', 0, bench.now)
    bench.tick()
    assert.equal(bench.pulls.length, 1)
  })

  it('neither gives up nor fetches what is broken where it drains, before its view has settled', () => {
    const bench = new Bench({ settleMs: 60_000 }, {}, [{ model: 'm', shard: 0 }, { model: 'm', shard: 1 }], undefined, true)
    const pass = (seconds: number): void => { for (let i = 0; i < seconds; i++) bench.tick() }
    bench.says('a', { committed: bits(0, 1) })
    bench.replicator.drain(true, bench.now)
    bench.replicator.lost('m', 0, bench.now)
    pass(50)
    assert.deepEqual([...bench.ledger], ['m/0', 'm/1'])
    pass(20)
    assert.deepEqual([...bench.ledger], ['m/1'], 'there is nothing here that anybody could lose')
    assert.deepEqual(bench.pulls, [])
  })

  it('fetches a broken replica again only when others do not have it as often as is wanted, unless it is kept here', () => {
    const broken = (others: string[], kept: boolean): Bench => {
      const bench = new Bench()
      bench.has(kept)
      for (const shard of [0, 1]) bench.offers('a', shard)
      for (const peer of others) bench.says(peer, { committed: bits(0, 1) })
      for (let i = 0; i < 3; i++) bench.tick()
      bench.replicator.lost('m', 0, bench.now)
      bench.tick()
      return bench
    }
    const enough = broken(['a', 'b', 'c'], false)
    assert.deepEqual(enough.pulls, [])
    assert.deepEqual([...enough.ledger], ['m/1'])
    assert.deepEqual(broken(['a', 'b'], false).pulls.map(({ shard }) => shard), [0])
    assert.deepEqual(broken(['a', 'b', 'c'], true).pulls.map(({ shard }) => shard), [0])
  })

  it('asks who has mended its replica for a new proof at once, and does not replace it meanwhile', () => {
    const bench = new Bench()
    bench.has(false)
    bench.reachable = ['a', 'b', 'spare']
    bench.says('spare', {})
    bench.offers('a', 0)
    for (const peer of ['a', 'b']) bench.says(peer, { committed: bits(0) })
    for (let i = 0; i < 3; i++) bench.tick()
    const replicas = (): number | undefined => bench.replicator.shards('m', bench.now)?.[0]?.replicas
    assert.equal(replicas(), 3)
    // What it answers next is wrong, and it looks.
    bench.now += 50 * 60_000
    bench.replicator.tick(bench.now)
    const asked = bench.take('challenge').find(({ to }) => to === 'a')
    assert(asked !== undefined)
    bench.replicator.receive('a', { type: 'proof', id: asked.message.id, model: 'm', digests: asked.message.shards.map(() => new Uint8Array(32)) }, bench.now)
    assert.equal(bench.take('disproved').length, 1)
    bench.says('a', { committed: bits(), pending: bits(0) })
    bench.tick()
    bench.says('a', { committed: bits(0) })
    bench.tick()
    assert.equal(replicas(), 3)
    assert.deepEqual(bench.take('offer'), [])
  })

  it('counts what a peer has shown until that runs out, when it comes and goes and may not hear what it is asked', () => {
    const bench = new Bench()
    const replicas = (): number | undefined => bench.replicator.shards('m', bench.now)?.[0]?.replicas
    const pass = (ms: number): void => { for (const until = bench.now + ms; bench.now < until;) bench.tick() }
    bench.has(true)
    bench.replicator.setPolicy(policy(), bench.now)
    for (const peer of ['a', 'b']) bench.says(peer, { committed: bits(0, 1) })
    pass(3_000)
    const shownAt = bench.now
    assert.equal(replicas(), 3)
    bench.deaf.add('a')
    // A word now and then, and nothing between: it is suspect and alive in turn.
    while (bench.now < shownAt + 55 * 60_000) {
      bench.heardAt.set('a', bench.now)
      pass(10_000)
      assert.equal(replicas(), 3)
      pass(10_000)
    }
    bench.heardAt.delete('a')
    pass(3 * 60_000)
    assert.equal(replicas(), 2, 'it answers nothing although it has been there all the time')
  })

  it('tells who asks about one that stopped since when, whatever of it came late', () => {
    const bench = new Bench()
    bench.has(true)
    bench.replicator.setPolicy(policy(), bench.now)
    bench.says('a', { committed: bits(0, 1) })
    bench.tick()
    const age = (): number | undefined => {
      bench.replicator.receive('b', { type: 'ask', peer: 'a' }, bench.now)
      return bench.take('seen').pop()?.message.ageMs
    }
    assert.equal(age(), 0)
    bench.says('a', { committed: bits(0, 1) }, { leaving: true })
    for (let i = 0; i < 20; i++) bench.tick()
    assert.equal(age(), 20_000)
    bench.says('a', { committed: bits(0, 1) }, { incarnation: 'a again' })
    assert.equal(age(), 0)
  })

  it('answers who asks for its space, also when the only model that one spoke of is one it has nothing of any more', () => {
    const bench = new Bench()
    bench.has(false)
    bench.says('peer', { policies: [policy().bytes], committed: bits(0) })
    for (let i = 0; i < 5; i++) bench.tick()
    bench.says('peer', {})
    for (let i = 0; i < 5; i++) bench.tick()
    bench.take('state')
    bench.says('peer', {}, { wantsReply: true })
    for (let i = 0; i < 3; i++) bench.tick()
    assert.deepEqual(bench.take('state').map(({ to }) => to), ['peer'])
  })

  it('looks for candidates of some hundred shards in a tick, and comes to all of them one tick after the other', () => {
    const bench = new Bench()
    const shardBytes = Array.from({ length: 3_000 }, (_, shard) => shard === 2_999 ? 1_000 : 10 * MiB)
    bench.reachable = ['small']
    bench.replicator.model({ cid: 'big', shardBytes, held: shardBytes.keys(), kept: true }, bench.now)
    bench.replicator.setPolicy(policy({ model: 'big', target: 2 }), bench.now)
    bench.replicator.found('big', [], bench.now)
    let ticks = 0
    for (; ticks < 30 && bench.take('offer').length === 0; ticks++) {
      bench.says('small', {}, { freeBytes: 2_000, models: [] })
      bench.tick()
    }
    const perTick = 3_000 / ticks
    assert(perTick > 250 && perTick < 750, `the last of 3,000 shards, for which alone there is room, was offered in tick ${ticks}`)
  })

  describe('after a loss of its ledger', () => {
    const lost = (settings: Partial<ReplicationSettings> = {}, ms = 0): Bench => {
      const bench = new Bench(settings, {}, [], ms)
      bench.tick()
      return bench
    }
    const stays = ({ replicator }: Bench): boolean => replicator.keeps('m') && !replicator.spare('m', 0)

    it('lets nothing go before others have told what is wanted, and promises that anew', () => {
      const bench = lost()
      assert.equal(bench.searches, 1)
      assert(stays(bench))
      assert.equal(bench.replicator.drainStatus(bench.now).left.length, 2, 'a drain is not over')
      bench.replicator.found('m', ['peer'], bench.now)
      bench.tick()
      assert(stays(bench))
      assert.equal(bench.ledger.size, 0)
      bench.saveFails = true
      bench.says('peer', { policies: [policy().bytes], committed: bits(0) })
      bench.tick()
      assert.equal(bench.replicator.rebuilding, 1, 'the ledger cannot be written')
      bench.saveFails = false
      bench.tick()
      assert.deepEqual([...bench.ledger], ['m/1', 'm/0'])
      assert.equal(bench.replicator.rebuilding, 0)
    })

    it('promises no more than it gives, and first what the fewest others promise', () => {
      const bench = lost({ donateBytes: 15 * MiB })
      bench.says('peer', { policies: [policy().bytes], committed: bits(0) })
      bench.tick()
      assert.deepEqual([...bench.ledger], ['m/1'])
    })

    it('does not take for unwanted what is wanted by a policy that it could not record', () => {
      const bench = lost()
      bench.savePolicyFails = true
      bench.replicator.found('m', ['peer'], bench.now)
      bench.says('peer', { policies: [policy().bytes], committed: bits(0, 1) })
      bench.tick()
      assert(stays(bench))
      bench.savePolicyFails = false
      bench.says('peer', { policies: [policy().bytes], committed: bits(0, 1) })
      bench.tick()
      assert.equal(bench.ledger.size, 2)
    })

    it('is free to let go of what others have and nobody wants kept', () => {
      const bench = lost()
      bench.replicator.found('m', ['peer', 'other'], bench.now)
      bench.says('peer', { cached: bits(0, 1) })
      bench.tick()
      assert(stays(bench), 'the other has not been heard')
      bench.says('other', { cached: bits(0) })
      bench.tick()
      assert(!stays(bench))
      assert.equal(bench.ledger.size, 0)
    })

    it('waits for a week where nobody is left who could tell, also over restarts', () => {
      const day = 24 * 60 * 60_000
      const bench = lost({}, 6 * day)
      bench.replicator.found('m', [], bench.now)
      bench.tick(day - 2_000)
      assert(stays(bench))
      bench.tick(2_000)
      assert(!stays(bench))
    })
  })

  it('gives no space that what is on its way will take from the disk', () => {
    const bench = new Bench()
    bench.diskFreeBytes = 15 * MiB
    const offer = (shard: number): void => {
      bench.replicator.receive('peer', { type: 'offer', id: `o${shard}`, model: 'm', shard, shards: 2, bytes: 10 * MiB, urgent: false, policies: [policy().bytes], holders: [] }, bench.now)
    }
    offer(0)
    offer(1)
    assert.equal(bench.take('accept').length, 1)
    assert.deepEqual(bench.take('decline').map(({ message }) => message.reason), ['space'])
  })

  it('promises the last copy, though it gives nothing, at once where it had it for long, and later where it has just come', () => {
    for (const [hadMs, promisesIn] of [[15 * 60_000, 90_000], [10_000, 12 * 60_000]] as const) {
      const bench = new Bench({ donateBytes: 0 })
      bench.has(false)
      bench.says('holder', { policies: [policy().bytes], committed: bits(0, 1) })
      for (let ms = 0; ms < hadMs; ms += 5_000) bench.tick(5_000)
      assert.equal(bench.ledger.size, 0)
      bench.heardAt.set('holder', bench.now)
      const diedAt = bench.now
      while (bench.ledger.size === 0 && bench.now - diedAt < 30 * 60_000) bench.tick(5_000)
      const took = bench.now - diedAt
      assert(took <= promisesIn && took > promisesIn / 4, `had it for ${hadMs} ms, promised it ${took} ms after the other died`)
    }
  })

  it('waits, when it drains, for who is away only for as long as one may be away, and with a deadline not at all', () => {
    const { replicator } = new Bench({ graceDefaultMs: 60_000 })
    const inHaste = (on: boolean, now: number, hurry = false): boolean => {
      replicator.drain(on, now, hurry)
      return replicator.inHaste
    }
    assert.equal(inHaste(true, 1_000), false)
    assert.equal(inHaste(true, 60_999), false)
    assert.equal(inHaste(true, 61_000), true)
    assert.equal(inHaste(false, 61_001), false)
    assert.equal(inHaste(true, 200_000), false)
    assert.equal(inHaste(true, 200_001, true), true)
  })

  it('hands over what is added while it drains', () => {
    const bench = new Bench()
    bench.reachable = ['roomy', 'other', 'third']
    bench.replicator.drain(true, bench.now)
    bench.has(true)
    bench.replicator.setPolicy(policy(), bench.now)
    const offered = new Set<string>()
    for (let i = 0; i < 60; i++) {
      if (i % 20 === 0) for (const peer of bench.reachable) bench.says(peer, {})
      bench.tick()
      for (const { to, message } of bench.take('offer')) {
        offered.add(`${to}/${message.shard}`)
        bench.replicator.receive(to, { type: 'accept', id: message.id, model: 'm', shard: message.shard }, bench.now)
      }
    }
    assert.equal(offered.size, 6, 'three of each shard')
    assert.equal(bench.replicator.drainStatus(bench.now).left.length, 2)
    for (const peer of bench.reachable) bench.says(peer, { policies: [policy().bytes], committed: bits(0, 1) })
    for (let i = 0; i < 30; i++) bench.tick()
    assert.deepEqual(bench.replicator.drainStatus(bench.now).left, [])
  })

  it('takes a promise out of the ledger later when that could not be written as the model was removed, unless it promises anew', () => {
    const bench = new Bench()
    bench.has(true)
    bench.replicator.setPolicy(policy(), bench.now)
    bench.tick()
    assert.equal(bench.ledger.size, 2)
    bench.saveFails = true
    bench.replicator.forget('m', bench.now)
    for (let i = 0; i < 30; i++) bench.tick()
    assert.equal(bench.ledger.size, 2)
    bench.saveFails = false
    for (let i = 0; i < 30; i++) bench.tick()
    assert.equal(bench.ledger.size, 0)

    bench.has(true)
    bench.tick()
    bench.saveFails = true
    bench.replicator.forget('m', bench.now)
    bench.tick()
    bench.saveFails = false
    bench.has(true)
    for (let i = 0; i < 30; i++) bench.tick()
    assert.equal(bench.ledger.size, 2, 'what was promised anew stays')
    assert.equal(bench.replicator.committedBytes, 20 * MiB)
  })

  it('takes out of the ledger what a former life promised of a model that is not here any more', () => {
    const bench = new Bench({}, {}, [{ model: 'm', shard: 0 }])
    bench.saveFails = true
    bench.tick()
    assert.equal(bench.ledger.size, 1)
    bench.saveFails = false
    for (let i = 0; i < 30; i++) bench.tick()
    assert.equal(bench.ledger.size, 0)
    bench.has(false)
    bench.tick()
    assert.equal(bench.replicator.committedBytes, 0)
  })

  describe('letting go of a surplus', () => {
    /** This node and a, b, c, d hold all of it, and at most four shall. */
    function crowded (): Bench {
      const bench = new Bench()
      bench.replicator.model({ cid: 'm', shardBytes: [10 * MiB, 10 * MiB], held: [0, 1], kept: true }, bench.now)
      bench.replicator.setPolicy(policy({ target: 4, max: 4 }), bench.now)
      bench.tick()
      bench.replicator.model({ cid: 'm', shardBytes: [10 * MiB, 10 * MiB], held: [0, 1], kept: false }, bench.now)
      for (const peer of ['a', 'b', 'c', 'd']) bench.says(peer, { committed: bits(0, 1) })
      bench.tick()
      return bench
    }
    const released = (bench: Bench): number => bench.notes.filter(({ type }) => type === 'released').length
    function ask (bench: Bench): Array<{ to: string, id: string, shard: number }> {
      for (let i = 0; i < 30 * 60; i++) {
        bench.tick()
        const asked = bench.take('release')
        if (asked.length > 0) return asked.map(({ to, message }) => ({ to, id: message.id, shard: message.shard })).filter(({ shard }, _, [first]) => shard === first?.shard)
      }
      return []
    }
    const say = (bench: Bench, { to, id, shard }: { to: string, id: string, shard: number }, ok: boolean): void => { bench.replicator.receive(to, { type: 'keep', id, model: 'm', shard, ok }, bench.now) }

    it('waits until all have been heard, and goes on without those who are silent', () => {
      const bench = crowded()
      bench.says('e', { committed: bits(0, 1) })
      const asked = ask(bench)
      assert.equal(asked.length, 5)
      for (const each of asked.slice(1)) say(bench, each, true)
      assert.equal(released(bench), 0, 'one has not answered')
      for (let i = 0; i < 11; i++) bench.tick()
      assert.equal(released(bench), 1)
    })

    it('stops at one no, and asks again', () => {
      const bench = crowded()
      bench.says('e', { committed: bits(0, 1) })
      const asked = ask(bench)
      for (const [i, each] of asked.entries()) say(bench, each, i > 0)
      for (let i = 0; i < 11; i++) bench.tick()
      assert.equal(released(bench), 0)
      for (const each of ask(bench)) say(bench, each, true)
      assert.equal(released(bench), 1)
    })

    it('promises nothing to who would be missed here, unless that one drains', () => {
      const bench = crowded()
      const answer = (from: string): boolean | undefined => {
        bench.replicator.receive(from, { type: 'release', id: 'r', model: 'm', shard: 0 }, bench.now)
        return bench.take('keep')[0]?.message.ok
      }
      assert.equal(answer('a'), true)
      bench.says('d', {})
      bench.tick()
      assert.equal(answer('a'), false)
      bench.says('a', { committed: bits(0, 1) }, { draining: true })
      assert.equal(answer('a'), true)
    })
  })
})
