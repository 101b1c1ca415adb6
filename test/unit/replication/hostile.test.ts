import assert from 'node:assert/strict'
import { Bitfield, MiB, seededRandom } from '../../../src/base/index.ts'
import { challengeSeed } from '../../../src/replication/challenge.ts'
import { Replicator } from '../../../src/replication/replicator.ts'
import { defaultReplication } from '../../../src/replication/settings.ts'
import type { ModelClaim, PolicyRecord, PullJob, ReplicaMessage, ReplicaPorts, ReplicationSettings } from '../../../src/replication/types.ts'

type Offer = Extract<ReplicaMessage, { type: 'offer' }>

const SHARDS_MAX = 65_536
const encode = (record: Omit<PolicyRecord, 'bytes'>): PolicyRecord => ({ ...record, bytes: new TextEncoder().encode(JSON.stringify(record)) })
const policy = (model: string, over: Partial<PolicyRecord> = {}): PolicyRecord => encode({ model, min: 2, target: 3, max: 5, sequence: 1, publisher: 'publisher', ...over })

/** One node, and what others with the swarm key can make it do. */
class Victim {
  readonly sent: Array<{ to: string, message: ReplicaMessage }> = []
  pulls: PullJob[] = []
  readonly policies = new Map<string, PolicyRecord>()
  readonly replicator: Replicator
  scrubs: number[] = []
  reachable: string[] = []
  readonly silentSince = new Map<string, number>()
  writes = 0
  /** Challenges of others that were answered from the disk. */
  proofs = 0
  searches = 0
  now = 1_000_000
  #version = 0

  constructor (settings: Partial<ReplicationSettings> = {}, policies: PolicyRecord[] = []) {
    for (const record of policies) this.policies.set(`${record.model} ${record.publisher}`, record)
    const ports: ReplicaPorts = {
      send: (to, message) => { this.sent.push({ to, message }) },
      heardAt: id => this.silentSince.get(id) ?? this.now,
      watch: () => undefined,
      reachable: () => this.reachable,
      find: () => { this.searches++; return true },
      pull: job => { this.pulls.push(job) },
      cancel: () => undefined,
      prove: (_model, shards, seed, done, asker) => {
        if (asker !== undefined) this.proofs++
        done(shards.map(shard => Uint8Array.of(shard, ...seed)))
      },
      scrub: (_model, shard) => { this.scrubs.push(shard) },
      save: () => undefined,
      savePolicies: ({ saved, dropped }) => {
        this.writes++
        for (const { model, publisher } of dropped) this.policies.delete(`${model} ${publisher}`)
        for (const record of saved) this.policies.set(`${record.model} ${record.publisher}`, record)
      },
      readPolicy: bytes => encode(JSON.parse(new TextDecoder().decode(bytes)) as Omit<PolicyRecord, 'bytes'>),
      diskFreeBytes: () => 1e15,
      note: () => undefined
    }
    this.replicator = new Replicator({ self: 'self', labels: {}, settings: { ...defaultReplication, settleMs: 0, donateBytes: 100 * MiB, ...settings }, random: seededRandom(1), ports, commitments: [], policies })
    this.replicator.start(this.now)
  }

  tick (ms = 1_000): void {
    this.now += ms
    this.replicator.tick(this.now)
  }

  offer (from: string, model: string, over: Partial<Offer> = {}): string {
    const before = this.sent.length
    this.replicator.receive(from, { type: 'offer', id: `${from} ${model}`, model, shard: 0, shards: SHARDS_MAX, bytes: 1_000, urgent: true, policies: [policy(model).bytes], holders: [], ...over }, this.now)
    const answer = this.sent.slice(before).find(({ message }) => message.type === 'accept' || message.type === 'decline')?.message
    return answer?.type === 'decline' ? answer.reason : answer?.type ?? 'no answer'
  }

  says (from: string, model: string, claim: Partial<ModelClaim> = {}): void {
    const none = new Bitfield(2).bytes
    this.replicator.receive(from, {
      type: 'state', incarnation: from, version: ++this.#version, ackIncarnation: '', ackVersion: 0, wantsReply: false, draining: false, leaving: false, freeBytes: 1_000 * MiB, labels: {},
      models: [{ model, shards: 2, policies: [], committed: none, pending: none, cached: none, members: [], ...claim }]
    }, this.now)
  }

  /** What is on its way does not come. */
  failPulls (): void {
    for (const { model, shard } of this.pulls.splice(0)) this.replicator.pulled(model, shard, false, this.now)
  }
}

describe('offers of who only has the swarm key', () => {
  it('cost nothing before they are accepted, whatever size they say that a model has', () => {
    const victim = new Victim()
    const before = process.memoryUsage()
    const startedAt = performance.now()
    for (let i = 0; i < 300; i++) {
      assert.equal(victim.offer('attacker', `empty ${i}`, { bytes: 0 }), 'unknown-model', 'no shard is empty')
      assert.equal(victim.offer('attacker', `unsigned ${i}`, { policies: [] }), 'unknown-model')
      assert.equal(victim.offer('attacker', `huge ${i}`, { bytes: 200 * MiB }), 'space')
    }
    assert.ok(performance.now() - startedAt < 3_000) // 0.4 s for each one was usual once
    const after = process.memoryUsage()
    assert.ok(after.heapUsed + after.arrayBuffers - before.heapUsed - before.arrayBuffers < 100 * MiB)
    assert.equal(victim.pulls.length, 0)
  })

  it('are urgent for so many shards at once, and so many of one peer, as anybody may offer', () => {
    const victim = new Victim()
    victim.replicator.model({ cid: 'm', shardBytes: Array.from({ length: 1_000 }, () => 1_000), held: [], kept: false }, victim.now)
    const taken = (from: string): number => Array.from({ length: 200 }, (_, i) => victim.offer(from, 'm', { shards: 1_000, shard: Number.parseInt(from, 10) * 200 + i })).filter(answer => answer === 'accept').length
    assert.deepEqual(['0', '1', '2'].map(taken), [32, 32, 0])
    assert.equal(victim.offer('3', 'm', { shards: 1_000, shard: 999, urgent: false }), 'busy')
  })

  it('take half of the places of ordinary pulls, and leave the others to others', () => {
    const victim = new Victim({ pullsMax: 4 })
    const taken = (from: string): string[] => Array.from({ length: 4 }, (_, i) => victim.offer(from, `${from} ${i}`, { urgent: false }))
    assert.deepEqual(taken('attacker'), ['accept', 'accept', 'busy', 'busy'])
    assert.deepEqual(taken('honest'), ['accept', 'accept', 'busy', 'busy'])
  })

  it('of models that never come are few at a time, cost little, and are forgotten', () => {
    const victim = new Victim()
    let accepted = 0
    for (let i = 0; i < 2_000; i++) {
      if (victim.offer('attacker', `fake ${i}`) === 'accept') accepted++
      victim.failPulls()
      if (i % 200 === 199) victim.tick()
    }
    assert.ok(accepted <= 32, String(accepted))
    const startedAt = performance.now()
    for (let i = 0; i < 100; i++) victim.tick()
    assert.ok(performance.now() - startedAt < 2_000)
    assert.equal(victim.offer('another', 'a model'), 'accept', 'others are not kept out')
    victim.failPulls()
    assert.deepEqual(victim.replicator.models(victim.now), [])
    assert.equal(victim.searches, 0)
    for (let minute = 0; minute < 25; minute++) victim.tick(60_000)
    assert.equal(victim.replicator.policyOf('a model'), undefined)
    assert.equal(victim.replicator.policyOf('fake 0'), undefined)
  })

  it('write nothing when they are declined, and what they wrote of what did not come goes', () => {
    const victim = new Victim()
    const records = (model: string): Uint8Array[] => Array.from({ length: 16 }, (_, i) => policy(model, { publisher: `made up ${i}` }).bytes)
    for (let i = 0; i < 1_000; i++) victim.offer('attacker', `large ${i}`, { bytes: 200 * MiB, policies: records(`large ${i}`) })
    assert.equal(victim.writes, 0)
    assert.equal(victim.offer('attacker', 'small', { policies: records('small') }), 'accept')
    assert.equal(victim.writes, 1, 'sixteen records with one sync')
    assert.equal(victim.policies.size, 16)
    victim.failPulls()
    for (let minute = 0; minute < 25; minute++) victim.tick(60_000)
    assert.equal(victim.policies.size, 0)
  })

  it('do not say how many shards a model has', () => {
    const victim = new Victim()
    assert.equal(victim.offer('attacker', 'm'), 'accept')
    assert.equal(victim.offer('publisher', 'm', { shards: 2 }), 'accept', 'before it is here nobody knows who is right')
    assert.equal(victim.replicator.shards('m', victim.now)?.length, 2)
    assert.equal(victim.offer('attacker', 'm', { shards: 3 }), 'accept')
    victim.replicator.model({ cid: 'm', shardBytes: [1_000, 1_000], held: [0], kept: false }, victim.now)
    assert.equal(victim.replicator.shards('m', victim.now)?.length, 2)
    assert.equal(victim.replicator.policyOf('m')?.target, 3)
    assert.equal(victim.offer('attacker', 'm', { shards: 3 }), 'unknown-model')
    assert.equal(victim.replicator.pulling, 0)
  })

  it('do not say how large a shard is that is known here', () => {
    const victim = new Victim()
    victim.replicator.model({ cid: 'm', shardBytes: [10 * MiB, 200 * MiB], held: [0], kept: false }, victim.now)
    assert.equal(victim.offer('attacker', 'm', { shards: 2, shard: 1, bytes: 1 }), 'space')
    assert.equal(victim.offer('attacker', 'm', { shards: 2, shard: 0, bytes: 1 }), 'accept')
    assert.equal(victim.replicator.promisedBytes, 10 * MiB)
  })
})

describe('policies of who only has the swarm key', () => {
  it('are recorded together when they come fast, and none is in force before it is recorded', () => {
    const victim = new Victim()
    victim.replicator.model({ cid: 'm', shardBytes: [1_000, 1_000], held: [0], kept: false }, victim.now)
    for (let sequence = 1; sequence <= 1_000; sequence++) victim.says('attacker', 'm', { policies: [policy('m', { publisher: 'made up', target: 1 + sequence % 2, min: 1, sequence }).bytes] })
    assert.ok(victim.writes <= 33, String(victim.writes))
    const recorded = [...victim.policies.values()].at(-1)?.target
    assert.equal(victim.replicator.policyOf('m')?.target, recorded)
    victim.says('publisher', 'm', { policies: [policy('m').bytes] })
    victim.tick()
    assert.equal(victim.replicator.policyOf('m')?.target, 3)
    assert.ok(victim.writes <= 34)
  })

  it('of models that are not here any more are bounded, and those of this node stay', () => {
    const models = Array.from({ length: 3_000 }, (_, i) => `model ${i}`)
    const victim = new Victim({}, models.flatMap(model => [policy(model), policy(model, { publisher: 'self', sequence: 7 })]))
    const others = [...victim.policies.values()].filter(({ publisher }) => publisher !== 'self')
    assert.ok(others.length <= 1_024)
    assert.ok(others.length >= 512)
    assert.equal(victim.policies.size - others.length, 3_000)
    assert.equal(victim.writes, 1)
    assert.equal(victim.replicator.nextSequence('model 0', 1), 8)
  })
})

describe('proofs for who only has the swarm key', () => {
  const held = (victim: Victim): void => {
    victim.replicator.model({ cid: 'm', shardBytes: [1_000, 1_000], held: [0, 1], kept: true }, victim.now)
    victim.replicator.setPolicy(policy('m'), victim.now)
  }
  const all = Bitfield.full(2).bytes

  it('are not had by sending a challenge back to who made it', () => {
    const victim = new Victim()
    held(victim)
    const asked = new Map<string, string>()
    for (let second = 0; second < 120; second++) {
      victim.says('attacker', 'm', { committed: all })
      victim.tick()
      for (const { message } of victim.sent.splice(0)) {
        if (message.type === 'challenge') {
          asked.set(`back ${message.id}`, message.id)
          victim.replicator.receive('attacker', { ...message, id: `back ${message.id}` }, victim.now)
        }
      }
      for (const { message } of victim.sent.splice(0)) {
        if (message.type === 'proof') victim.replicator.receive('attacker', { ...message, id: asked.get(message.id) ?? '' }, victim.now)
      }
    }
    assert.ok(asked.size > 0)
    assert.equal(victim.replicator.models(victim.now)[0]?.replicasMin, 1)
  })

  it('are made for those that have to do with the model', () => {
    const victim = new Victim()
    held(victim)
    const challenge: ReplicaMessage = { type: 'challenge', id: 'a', model: 'm', shards: [0, 1], nonce: new Uint8Array(16) }
    victim.replicator.receive('stranger', challenge, victim.now)
    assert.equal(victim.proofs, 0)
    victim.says('holder', 'm', { committed: all })
    victim.replicator.receive('holder', challenge, victim.now)
    assert.equal(victim.proofs, 1)
    victim.replicator.receive('holder', { ...challenge, model: 'unknown' }, victim.now)
    assert.equal(victim.proofs, 1, 'that nothing is here is said without a look at the disk')
  })

  it('are asked for a few at a time, however many models a peer has in common with this node', () => {
    const victim = new Victim()
    for (let i = 0; i < 100; i++) {
      victim.replicator.model({ cid: `m${i}`, shardBytes: [1_000, 1_000], held: [0, 1], kept: true }, victim.now)
      victim.replicator.setPolicy(policy(`m${i}`), victim.now)
      victim.says('peer', `m${i}`, { committed: all })
    }
    const asked = new Set<string>()
    for (let second = 0; second < 60; second++) {
      victim.tick()
      const challenges = victim.sent.splice(0).flatMap(({ message }) => message.type === 'challenge' ? [message] : [])
      assert.ok(challenges.length <= 16)
      for (const { id, model, shards, nonce } of challenges) {
        asked.add(model)
        victim.replicator.receive('peer', { type: 'proof', id, model, digests: shards.map(shard => Uint8Array.of(shard, ...challengeSeed(nonce, 'self', 'peer'))) }, victim.now)
      }
    }
    assert.equal(asked.size, 100)
    assert.ok(victim.replicator.models(victim.now).every(({ replicasMin }) => replicasMin === 2))
  })
})

describe('claims of who only has the swarm key', () => {
  const all = Bitfield.full(2).bytes
  const commits = (victim: Victim): string[] => victim.sent.splice(0).flatMap(({ to, message }) => to === 'holder' && (message.type === 'commit' || message.type === 'abandon') ? [message.type] : [])
  const crowd = (victim: Victim): void => { for (let i = 0; i < 10; i++) victim.says(`made up ${i}`, 'm', { committed: all }) }

  it('do not make a donor throw away what it has fetched', () => {
    const victim = new Victim()
    assert.equal(victim.offer('holder', 'm', { shards: 2, urgent: false }), 'accept')
    crowd(victim)
    victim.replicator.model({ cid: 'm', shardBytes: [1_000, 1_000], held: [0], kept: false }, victim.now)
    victim.replicator.pulled('m', 0, true, victim.now)
    assert.deepEqual(commits(victim), ['commit'])
  })

  it('do not make a donor decline a last copy', () => {
    const victim = new Victim()
    victim.replicator.model({ cid: 'm', shardBytes: [1_000, 1_000], held: [], kept: false }, victim.now)
    victim.says('holder', 'm', { committed: all, policies: [policy('m').bytes] })
    crowd(victim)
    victim.tick()
    assert.equal(victim.offer('holder', 'm', { shards: 2, shard: 0, urgent: false }), 'held')
    assert.equal(victim.offer('holder', 'm', { shards: 2, shard: 1, urgent: true }), 'accept')
  })
})

describe('doubts of who only has the swarm key', () => {
  const all = Bitfield.full(2).bytes
  const disproved = (victim: Victim, from: string, shard = 0): void => { victim.replicator.receive(from, { type: 'disproved', model: 'm', shard }, victim.now) }
  const challenge = (victim: Victim, from: string, shards = [0]): void => { victim.replicator.receive(from, { type: 'challenge', id: 'a', model: 'm', shards, nonce: new Uint8Array(16) }, victim.now) }
  const holder = (): Victim => {
    const victim = new Victim()
    victim.replicator.model({ cid: 'm', shardBytes: [1_000, 1_000], held: [0, 1], kept: true }, victim.now)
    victim.replicator.setPolicy(policy('m'), victim.now)
    for (const peer of ['a', 'b']) victim.says(peer, 'm', { committed: all })
    return victim
  }

  it('count where that one was just shown a proof, once in ten minutes, and again when the shard was bad', () => {
    const victim = holder()
    disproved(victim, 'a')
    disproved(victim, 'stranger')
    assert.deepEqual(victim.scrubs, [], 'it was shown nothing')
    challenge(victim, 'a')
    disproved(victim, 'b')
    disproved(victim, 'a', 1)
    assert.deepEqual(victim.scrubs, [])
    disproved(victim, 'a')
    assert.deepEqual(victim.scrubs, [0])
    for (let second = 0; second < 500; second++) {
      victim.tick()
      for (const peer of ['a', 'b']) { challenge(victim, peer); disproved(victim, peer) }
    }
    assert.deepEqual(victim.scrubs, [0])
    victim.replicator.lost('m', 0, victim.now)
    victim.replicator.held('m', 0, victim.now)
    challenge(victim, 'b')
    disproved(victim, 'b')
    assert.deepEqual(victim.scrubs, [0, 0])
    victim.tick(5 * 60_000)
    disproved(victim, 'b')
    victim.tick(6 * 60_000)
    disproved(victim, 'b')
    assert.deepEqual(victim.scrubs, [0, 0], 'that answer is long ago')
    challenge(victim, 'b')
    disproved(victim, 'b')
    assert.deepEqual(victim.scrubs, [0, 0, 0])
  })

  it('do not come from wrong answers to what this node asks, more often than that', () => {
    const victim = holder()
    for (let second = 0; second < 500; second++) {
      victim.tick()
      for (const { to, message } of victim.sent.splice(0)) {
        if (message.type === 'challenge') victim.replicator.receive(to, { type: 'proof', id: message.id, model: 'm', digests: message.shards.map(() => new Uint8Array(32)) }, victim.now)
      }
    }
    assert.deepEqual(victim.scrubs, [0, 1])
  })
})

describe('hearsay of who only has the swarm key', () => {
  const all = Bitfield.full(2).bytes
  const answerChallenges = (victim: Victim, dead: string): void => {
    for (const { to, message } of victim.sent) {
      if (message.type !== 'challenge' || to === dead) continue
      victim.replicator.receive(to, { type: 'proof', id: message.id, model: 'm', digests: message.shards.map(shard => Uint8Array.of(shard, ...challengeSeed(message.nonce, 'self', to))) }, victim.now)
    }
  }
  /** Seconds until a last copy, whose other holder died a moment ago, is offered to somebody. `lies`: what a peer that shares the model does. */
  const companionAfter = (lies: (victim: Victim, asked: boolean) => void): number => {
    const victim = new Victim()
    victim.replicator.model({ cid: 'm', shardBytes: [1_000, 1_000], held: [0, 1], kept: true }, victim.now)
    victim.replicator.setPolicy(policy('m', { target: 2 }), victim.now)
    victim.replicator.found('m', [], victim.now)
    victim.says('other', 'm', { committed: all })
    for (let i = 0; i < 3; i++) { victim.tick(); answerChallenges(victim, '') }
    victim.says('liar', 'm', { cached: Uint8Array.of(1) })
    victim.reachable = ['free']
    assert.equal(victim.replicator.models(victim.now)[0]?.replicasMin, 2)
    victim.silentSince.set('other', victim.now)
    for (let second = 1; second < 7_200; second++) {
      victim.sent.length = 0
      victim.says('free', 'unrelated')
      if (second % 60 === 0) victim.says('liar', 'm', { cached: Uint8Array.of(1) })
      victim.tick()
      lies(victim, victim.sent.some(({ to, message }) => to === 'liar' && message.type === 'ask'))
      if (victim.sent.some(({ message }) => message.type === 'offer')) return second
    }
    return Infinity
  }

  it('counts from who was asked, and not a second time', () => {
    const honest = companionAfter((victim, asked) => { if (asked) victim.replicator.receive('liar', { type: 'seen', peer: 'other', ageMs: 60_000 }, victim.now) })
    assert.ok(honest <= 25, String(honest))
    const twice = companionAfter((victim, asked) => { victim.replicator.receive('liar', { type: 'seen', peer: 'other', ageMs: asked ? 60_000 : 0 }, victim.now) })
    const others = companionAfter(victim => { for (let i = 0; i < 10; i++) victim.replicator.receive(`made up ${i}`, { type: 'seen', peer: 'other', ageMs: 0 }, victim.now) })
    assert.ok(others <= 35, String(others))
    assert.ok(twice <= 25, String(twice))
  })
})
