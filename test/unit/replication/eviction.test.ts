import assert from 'node:assert/strict'
import { Bitfield } from '../../../src/base/index.ts'
import { keepsModel } from '../../../src/replication/eviction.ts'
import { FAILED_MAX, ModelView, Own, WRONG, type Claim } from '../../../src/replication/model-view.ts'
import { PeerTable, type Peer } from '../../../src/replication/peer-table.ts'
import type { Scene } from '../../../src/replication/planner.ts'
import { holdersOf } from '../../../src/replication/report.ts'
import { defaultReplication } from '../../../src/replication/settings.ts'

const settings = { ...defaultReplication, donateBytes: 0 }
const NOW = 10_000_000
const SHARDS = 8

/** One node, which has a model cached that somebody wants, and what it knows of others that have it cached. */
class Setting {
  readonly peers = new PeerTable(settings, { heardAt: () => NOW, ask: () => undefined, changed: () => undefined, brake: () => undefined })
  readonly view = new ModelView('model', SHARDS)
  readonly scene: Scene

  constructor (self: string, others: string[]) {
    this.scene = { self: this.peers.make(self, NOW), draining: false, inHaste: false, settled: true, settings, peers: this.peers, now: NOW }
    this.view.policy = { min: 2, target: 3, max: 5 }
    this.view.own.fill(Own.Held)
    for (const id of others) {
      Object.assign(this.peers.track(id, NOW), { stateAt: NOW, ackVersion: 1 })
      this.view.claim(id).cached = Bitfield.full(SHARDS)
    }
  }

  keeps (id = '', peer: Partial<Peer> = {}, claim: Partial<Claim> = {}): boolean {
    if (id !== '') { Object.assign(this.peers.get(id) ?? {}, peer); Object.assign(this.view.claim(id), claim) }
    return keepsModel(this.view, this.scene)
  }
}

const names = ['a', 'b', 'c', 'd', 'e']
const keepers = (who: string[]): string[] => who.filter(self => new Setting(self, who.filter(id => id !== self)).keeps())

describe('what a node may evict', () => {
  it('leaves exactly one of those that only have it cached, whoever they are', () => {
    let left = [...names]
    while (left.length > 0) {
      const [keeper, ...more] = keepers(left)
      assert(keeper !== undefined, 'all would go at once')
      assert.deepEqual(more, [])
      left = left.filter(id => id !== keeper)
    }
  })

  it('counts on a promise, whoever gave it', () => {
    const [first] = keepers(names)
    assert(first !== undefined)
    const [other] = names.filter(id => id !== first)
    const setting = new Setting(first, [other ?? ''])
    assert.equal(setting.keeps(), true)
    assert.equal(setting.keeps(other, {}, { committed: Bitfield.full(SHARDS) }), false)
    assert.equal(setting.keeps(other, { liveness: 'suspect' }), true, 'it is silent, and may be gone')
  })

  it('does not count on the promise of who cannot show that it has it, or shows something else', () => {
    for (const times of [FAILED_MAX, WRONG]) {
      const setting = new Setting('self', ['other'])
      const claim = setting.view.claim('other')
      Object.assign(claim, { cached: new Bitfield(SHARDS), committed: Bitfield.full(SHARDS) })
      assert.equal(setting.keeps(), false)
      claim.failed[SHARDS - 1] = times
      assert.equal(setting.keeps(), true)
      assert.equal(holdersOf(setting.view, SHARDS - 1, setting.scene).holders.at(-1)?.state, 'failed')
      assert.equal(holdersOf(setting.view, 0, setting.scene).holders.at(-1)?.state, 'claimed')
    }
  })

  it('does not count on what may be gone, or go', () => {
    const [first] = keepers(names)
    assert(first !== undefined)
    const [last] = names.filter(id => id !== first)
    const keeps = (peer: Partial<Peer>, claim: Partial<Claim> = {}): boolean => new Setting(last ?? '', [first]).keeps(first, peer, claim)
    assert.equal(keeps({}), false)
    assert.equal(keeps({ liveness: 'suspect' }), true)
    assert.equal(keeps({ leaving: true }), true)
    assert.equal(keeps({ draining: true }), true)
    assert.equal(keeps({}, { doubtedAt: NOW }), true, 'it has not said again that it has it')
    assert.equal(keeps({ ackVersion: 0 }), true, 'it may not know that it is wanted')
  })
})
