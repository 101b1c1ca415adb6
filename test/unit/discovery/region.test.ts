import assert from 'node:assert/strict'
import { seededRandom } from '../../../src/base/index.ts'
import { kadIdOfDigest } from '../../../src/discovery/dht-key.ts'
import { exploreRegion, keepersOf } from '../../../src/discovery/region.ts'
import { simulatedSwarm } from './simulated-swarm.ts'

const SEED = 4108

describe('a region', () => {
  for (const peers of [1, 5, 19, 20, 21, 40, 100, 400]) {
    it(`of ${peers} peers knows the keepers of each key in it (seed ${SEED})`, async () => {
      const random = seededRandom(SEED + peers)
      const swarm = await simulatedSwarm(peers, random)
      for (let round = 0; round < 8; round++) {
        let lookups = 0
        const region = await exploreRegion(random.bytes(32), async digest => { lookups++; return swarm.nearest(kadIdOfDigest(digest), 20) }, random)
        assert.ok(region.peers.length >= Math.min(20, peers))
        assert.ok(lookups <= 8, `${lookups} lookups`)
        let inside = 0
        for (let i = 0; i < 300; i++) {
          const kadId = kadIdOfDigest(random.bytes(32))
          if (Buffer.compare(kadId, region.low) < 0 || Buffer.compare(kadId, region.high) > 0) continue
          inside++
          const keepers = keepersOf(kadId, region.peers).map(contact => contact.id).sort()
          assert.deepEqual(keepers, swarm.nearest(kadId, 20).map(contact => contact.id).sort())
        }
        if (peers <= 20) assert.equal(inside, 300)
      }
    })
  }

  it('is the key alone where a lookup was cut short, the first or a later one', async () => {
    const random = seededRandom(SEED)
    const swarm = await simulatedSwarm(400, random)
    for (const cut of [1, 2]) {
      const digest = random.bytes(32)
      const place = kadIdOfDigest(digest)
      let lookups = 0
      const region = await exploreRegion(digest, async (digest, onCutShort) => {
        if (++lookups !== cut) return swarm.nearest(kadIdOfDigest(digest), 20)
        onCutShort()
        return swarm.nearest(kadIdOfDigest(digest), 400).slice(-20)
      }, random)
      assert.deepEqual([region.low, region.high, region.peers.length], [place, place, 20])
      assert.equal(lookups, cut, 'nothing more is asked')
    }
  })

  it('holds the key it was explored for, and with nobody is everything', async () => {
    const random = seededRandom(SEED)
    const swarm = await simulatedSwarm(200, random)
    for (let round = 0; round < 20; round++) {
      const digest = random.bytes(32)
      const region = await exploreRegion(digest, async digest => swarm.nearest(kadIdOfDigest(digest), 20), random)
      const place = kadIdOfDigest(digest)
      assert.ok(Buffer.compare(region.low, place) <= 0 && Buffer.compare(place, region.high) <= 0)
    }
    const alone = await exploreRegion(random.bytes(32), async () => [], random)
    assert.deepEqual(alone, { low: new Uint8Array(32), high: new Uint8Array(32).fill(255), peers: [] })
  })
})
