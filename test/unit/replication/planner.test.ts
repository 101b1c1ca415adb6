import assert from 'node:assert/strict'
import { Bitfield, MiB } from '../../../src/base/index.ts'
import { ModelView, Own, WRONG } from '../../../src/replication/model-view.ts'
import { PeerTable, type Peer } from '../../../src/replication/peer-table.ts'
import { distance, look, needOf, pick, rankOf, trimPlace, type Scene } from '../../../src/replication/planner.ts'
import { defaultReplication } from '../../../src/replication/settings.ts'

const settings = { ...defaultReplication, donateBytes: 0 }
const NOW = 10_000_000

/** A shard 0 of 100 MiB that this node holds, and peers that hold it too. */
class Setting {
  readonly peers = new PeerTable(settings, { heardAt: () => NOW, ask: () => undefined, changed: () => undefined, brake: () => undefined })
  readonly view = new ModelView('model', 1)
  readonly scene: Scene

  constructor () {
    const self = this.peers.make('self', NOW)
    this.scene = { self, draining: false, inHaste: false, settled: true, settings, peers: this.peers, now: NOW }
    this.view.policy = { min: 2, target: 3, max: 5 }
    this.view.bytes[0] = 100 * MiB
    this.view.own[0] = Own.Committed
    this.view.searched = true
  }

  peer (id: string, change: Partial<Peer> = {}): Peer {
    const peer = this.peers.track(id, NOW)
    Object.assign(peer, { stateAt: NOW, freeBytes: 1e12, ...change })
    return peer
  }

  holder (id: string, change: Partial<Peer> = {}, provenAt = NOW): Peer {
    const peer = this.peer(id, change)
    const claim = this.view.claim(id)
    claim.committed = Bitfield.full(1)
    claim.provenAt[0] = provenAt
    return peer
  }

  need (offered = 0): ReturnType<typeof needOf> { return needOf(this.view, 0, look(this.view, 0, this.scene), offered, this.scene) }
  below (sinceMs: number): void {
    const state = this.view.states[0]
    assert(state !== undefined)
    state.belowSince = NOW - sinceMs
  }
}

describe('replica planner', () => {
  it('does not count on the word of a silent holder for ever when no other that comes before is there to judge it', () => {
    const setting = new Setting()
    const comesBefore = (id: string): boolean => rankOf(setting.view, 0, setting.scene.self, [setting.peers.make(id, NOW)]) > 0
    const names = Array.from({ length: 100 }, (_, i) => `holder ${i}`)
    const [before, after] = [names.find(comesBefore), names.find(id => !comesBefore(id))]
    assert(before !== undefined && after !== undefined)
    setting.view.policy = { min: 2, target: 2, max: 3 }
    const unproven = NOW - settings.proofTtlMs - 1
    setting.holder('silent', { liveness: 'suspect', heardAt: NOW - settings.graceDefaultMs + 1 }, unproven)
    assert.equal(setting.need(), undefined)
    setting.holder('silent', { liveness: 'suspect', heardAt: NOW - settings.graceDefaultMs }, unproven)
    assert.equal(setting.need()?.why, 'last-copy')
    setting.view.policy = { min: 2, target: 3, max: 5 }
    setting.holder(after)
    assert.equal(setting.need()?.why, 'below-target', 'it may wait for this one to judge')
    setting.view.policy = { min: 2, target: 4, max: 5 }
    setting.holder(before)
    assert.equal(setting.need(), undefined)
  })

  it('waits for each of the missing as long as for the first', () => {
    const setting = new Setting()
    const state = setting.view.states[0]
    assert(state !== undefined)
    setting.view.policy = { min: 2, target: 4, max: 5 }
    setting.holder('there')
    state.belowSince = NOW - 4 * 60_000
    setting.holder('rebooting', { liveness: 'down', leaving: true, heardAt: NOW - 4 * 60_000, downAt: NOW - 4 * 60_000 })
    setting.holder('crashed', { liveness: 'down', heardAt: NOW - 25_000, downAt: NOW - 5_000 })
    assert.deepEqual([setting.need()?.wanted, setting.need()?.dueAt], [1, NOW - 25_000 + settings.graceTwoCopiesMs])
    setting.holder('crashed', { liveness: 'down', heardAt: NOW - settings.graceTwoCopiesMs, downAt: NOW - 40_000 })
    assert.deepEqual([setting.need()?.wanted, setting.need()?.dueAt], [1, state.belowSince + settings.graceTwoCopiesMs])
    setting.holder('rebooting', { liveness: 'down', leaving: true, heardAt: NOW - settings.graceDefaultMs, downAt: NOW - settings.graceDefaultMs })
    assert.equal(setting.need()?.wanted, 2)
  })

  it('waits beside a last copy for all who said goodbye, from the last goodbye on', () => {
    const setting = new Setting()
    const state = setting.view.states[0]
    assert(state !== undefined)
    // The first is up again and has not been heard; the next one has just stopped.
    state.belowSince = NOW - 5 * 60_000
    state.replicasSince = NOW - 300
    setting.holder('first', { liveness: 'down', leaving: true, heardAt: NOW - 5 * 60_000, downAt: NOW - 5 * 60_000 })
    setting.holder('next', { leaving: true, heardAt: NOW - 300 })
    assert.deepEqual([setting.need()?.why, setting.need()?.wanted, setting.need()?.dueAt], ['last-copy', 1, NOW - 300 + settings.downMs])
    // Who crashes is not waited for.
    setting.holder('next', { liveness: 'down', leaving: false, heardAt: NOW - settings.downMs, downAt: NOW })
    const companion = setting.need()
    assert.deepEqual([companion?.why, companion?.wanted], ['last-copy', 1])
    assert.ok(companion !== undefined && companion.dueAt <= NOW)
  })

  it('leaves it to others how long to wait for who had gone before this node came, while enough are left', () => {
    const setting = new Setting()
    setting.below(0)
    setting.holder('there')
    setting.view.members.set('gone', NOW - 60_000)
    setting.peer('gone', { liveness: 'down', stateAt: undefined, heardAt: NOW - 60_000, downAt: NOW - 30_000 })
    assert.ok((setting.need()?.dueAt ?? 0) >= NOW + settings.graceDefaultMs)
    setting.view.policy = { min: 3, target: 3, max: 5 }
    assert.ok((setting.need()?.dueAt ?? Infinity) <= NOW + settings.graceTwoCopiesMs + settings.rankDelayMs)
  })

  it('does not wait for who is up and gives no proof as for one that comes back', () => {
    const setting = new Setting()
    const state = setting.view.states[0]
    assert(state !== undefined)
    state.belowSince = NOW - settings.graceTwoCopiesMs
    setting.holder('there')
    setting.holder('wedged')
    setting.view.claim('wedged').failed[0] = 2
    assert.equal(setting.need()?.dueAt, NOW)
  })

  it('offers seldom what more holders dispute than confirm', () => {
    const setting = new Setting()
    const disputes = (id: string): void => {
      setting.holder(id)
      const claim = setting.view.claim(id)
      claim.failed[0] = WRONG
    }
    const state = setting.view.states[0]
    assert(state !== undefined)
    state.offeredAt = NOW - 1_000
    for (const id of ['a', 'b']) disputes(id)
    assert.deepEqual([setting.need()?.wanted, setting.need()?.dueAt], [2, NOW])
    disputes('c')
    assert.deepEqual([setting.need()?.wanted, setting.need()?.dueAt], [1, NOW - 1_000 + settings.disputedEveryMs])
    setting.scene.draining = true
    assert.equal(setting.need()?.dueAt, NOW - 1_000 + settings.disputedEveryMs)
    setting.scene.draining = false
    setting.view.policy = { min: 2, target: 5, max: 6 }
    for (const id of ['d', 'e', 'f']) setting.holder(id)
    assert.equal(setting.need()?.dueAt, NOW)
  })

  it('waits, when it drains, for holders that may come back, but not in haste', () => {
    const setting = new Setting()
    setting.view.policy = { min: 2, target: 3, max: 5 }
    for (const id of ['a', 'b']) setting.holder(id)
    setting.holder('rebooting', { liveness: 'down', leaving: true, heardAt: NOW - 60_000, downAt: NOW - 40_000 })
    setting.scene.draining = true
    const backBy = NOW - 60_000 + settings.graceDefaultMs
    assert.deepEqual([setting.need()?.why, setting.need()?.wanted, setting.need()?.dueAt], ['drain', 1, backBy])
    setting.scene.inHaste = true
    assert.deepEqual([setting.need()?.wanted, setting.need()?.dueAt], [1, NOW])
    setting.scene.inHaste = false
    setting.view.policy = { min: 2, target: 4, max: 5 }
    // Of two that are lacking nobody comes back for one.
    assert.deepEqual([setting.need()?.wanted, setting.need()?.dueAt], [1, NOW])
  })

  it('believes that a replica is on its way for as long as its peer tells its state', () => {
    const setting = new Setting()
    setting.peer('fetching', { stateAt: NOW - 20 * 60_000 })
    setting.view.claim('fetching').pending = Bitfield.full(1)
    assert.equal(look(setting.view, 0, setting.scene).pending.length, 1)
    setting.peer('fetching', { stateAt: NOW - 21 * 60_000 })
    assert.equal(look(setting.view, 0, setting.scene).pending.length, 0)
  })

  it('takes turns from the release of a brake on, not all at once', () => {
    const setting = new Setting()
    setting.view.kept = true
    setting.holder('a')
    setting.below(3_600_000)
    const rank = rankOf(setting.view, 0, setting.scene.self, [setting.peers.make('a', NOW)])
    const dueAt = (): number => setting.need()?.dueAt ?? NaN
    assert.ok(dueAt() < NOW - 1_000_000)
    Object.defineProperty(setting.peers, 'brakeOffAt', { value: NOW - 500 })
    assert.equal(dueAt(), NOW - 500 + rank * settings.rankDelayMs)
  })

  it('counts a replica only while it is proven, committed, up and not draining', () => {
    const at = new Setting()
    at.holder('proven')
    at.holder('never', {}, -Infinity)
    at.holder('long-ago', {}, NOW - settings.proofTtlMs - 1)
    at.holder('draining', { draining: true })
    at.holder('down', { liveness: 'down' })
    at.holder('suspect', { liveness: 'suspect' })
    at.view.claim('cached').cached = Bitfield.full(1)
    at.peer('cached')
    const seen = look(at.view, 0, at.scene)
    assert.equal(seen.replicas, 3) // this node, proven, suspect
    assert.deepEqual(seen.claimed.map(({ id }) => id), ['never', 'long-ago'])
    assert.deepEqual(seen.missing.map(({ id }) => id), ['down'])
    assert.deepEqual(seen.draining.map(({ id }) => id), ['draining'])
  })

  it('does not believe a claim that failed twice, and counts its own copy not while it drains', () => {
    const at = new Setting()
    at.holder('liar')
    const claim = at.view.claims.get('liar')
    assert(claim !== undefined)
    claim.failed[0] = 2
    assert.equal(look(at.view, 0, at.scene).replicas, 1)
    assert.equal(look(at.view, 0, { ...at.scene, draining: true }).replicas, 0)
  })

  it('wants what is lacking, less what is on its way', () => {
    const at = new Setting()
    assert.deepEqual({ wanted: at.need()?.wanted, why: at.need()?.why }, { wanted: 2, why: 'last-copy' })
    assert.equal(at.need(1)?.wanted, 1)
    at.peer('fetching')
    at.view.claim('fetching').pending = Bitfield.full(1)
    assert.equal(at.need(1), undefined)
    at.holder('a')
    assert.equal(at.need(), undefined) // 2 + 1 on its way
    at.view.claims.delete('fetching')
    assert.equal(at.need()?.why, 'below-target')
  })

  it('gives the missing time to come back, by what is left', () => {
    const at = new Setting()
    at.view.policy = { min: 2, target: 4, max: 6 }
    at.holder('gone', { liveness: 'down', downAt: NOW - 5_000 })
    at.below(5_000)
    assert.equal(at.need()?.dueAt, NOW - 5_000 + settings.graceLastCopyMs)
    assert.equal(at.need()?.wanted, 1, 'one companion at once, the rest after the grace')
    at.holder('a')
    assert.equal((at.need()?.dueAt ?? 0) % settings.rankDelayMs, (NOW - 5_000 + settings.graceTwoCopiesMs) % settings.rankDelayMs)
    at.holder('b')
    assert((at.need()?.dueAt ?? 0) >= NOW - 5_000 + settings.graceDefaultMs)
  })

  it('waits the whole grace for who said goodbye, while enough are left', () => {
    const at = new Setting()
    at.holder('rebooting', { leaving: true })
    at.holder('a')
    at.below(0)
    assert((at.need()?.dueAt ?? 0) >= NOW + settings.graceDefaultMs)
    at.view.claims.delete('a')
    assert.equal(at.need()?.dueAt, NOW + settings.downMs, 'the last copy waits no longer than for a silent peer')
  })

  it('waits no more for who has been gone for long when another stops in order', () => {
    const at = new Setting()
    at.view.policy = { min: 2, target: 4, max: 6 }
    at.holder('dead', { liveness: 'down', downAt: NOW - settings.graceDefaultMs })
    at.holder('a')
    at.below(0)
    assert((at.need()?.dueAt ?? NaN) <= NOW + settings.rankDelayMs, 'nobody is awaited')
    at.holder('rebooting', { leaving: true })
    assert((at.need()?.dueAt ?? NaN) >= NOW + settings.graceDefaultMs)
  })

  it('takes nothing for the last copy before a search has told who else has it, but does not wait for one that failed', () => {
    const setting = new Setting()
    setting.view.searched = false
    setting.view.askedAt = NOW
    const dueAt = (): number | undefined => setting.need()?.dueAt
    assert.equal(setting.need()?.why, 'last-copy')
    assert((dueAt() ?? 0) > NOW)
    setting.view.searched = true
    assert((dueAt() ?? Infinity) <= NOW)
    setting.view.searched = false
    setting.view.askedAt = NOW - 20_000
    assert((dueAt() ?? Infinity) <= NOW)
  })

  it('ranks the holders alike everywhere, and each rank waits longer', () => {
    const at = new Setting()
    const ids = ['self', 'a']
    at.holder('a')
    at.below(0)
    const own = at.need()?.dueAt ?? NaN
    const other = new Setting()
    const asA: Scene = { ...other.scene, self: other.peers.make('a', NOW) }
    other.holder('self')
    other.below(0)
    const theirs = needOf(other.view, 0, look(other.view, 0, asA), 0, asA)?.dueAt ?? NaN
    assert.deepEqual([own, theirs].sort((a, b) => a - b), [NOW, NOW + settings.rankDelayMs], `${ids.join(', ')} act one after the other`)
  })

  it('repairs last copies only while braked, one companion each, and nothing before it has settled', () => {
    const at = new Setting()
    Object.defineProperty(at.peers, 'brake', { value: true })
    assert.equal(at.need()?.wanted, 1)
    at.holder('a')
    assert.equal(at.need(), undefined)
    at.view.claims.delete('a')
    assert.equal(needOf(at.view, 0, look(at.view, 0, at.scene), 0, { ...at.scene, settled: false }), undefined)
  })

  it('picks who has it already, then the farthest domain', () => {
    const at = new Setting()
    const holder = at.holder('h', { labels: { zone: 'a', rack: '1', host: 'x' } })
    const sameRack = at.peer('same-rack', { labels: { zone: 'a', rack: '1', host: 'y' } })
    const otherRack = at.peer('other-rack', { labels: { zone: 'a', rack: '2', host: 'z' } })
    const otherZone = at.peer('other-zone', { labels: { zone: 'b', rack: '1', host: 'w' } })
    const nameless = at.peer('nameless')
    assert.deepEqual([sameRack, otherRack, otherZone, nameless].map(peer => distance(peer, [holder])), [1, 2, 3, 3])
    assert.equal(distance(at.peer('nameless-2'), [nameless]), 1)
    const candidates = [sameRack, otherRack, otherZone].map(peer => ({ peer, cached: false }))
    assert.equal(pick(at.view, 0, [holder], candidates)?.peer, otherZone)
    assert.equal(pick(at.view, 0, [holder], candidates.map(one => ({ ...one, cached: one.peer === sameRack })))?.peer, sameRack)
    assert.equal(pick(at.view, 0, [holder], []), undefined)
  })

  it('gives surplus holders each another place in the order of letting go', () => {
    const at = new Setting()
    const all = [at.scene.self, ...['a', 'b', 'c', 'd', 'e'].map(id => at.holder(id))]
    const places = all.map(peer => trimPlace(at.view, 0, peer, all.filter(other => other !== peer)))
    assert.deepEqual(places.sort((a, b) => a - b), [0, 1, 2, 3, 4, 5])
  })
})
