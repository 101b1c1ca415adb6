import assert from 'node:assert/strict'
import { setTimeout as delay } from 'node:timers/promises'
import { generateKeyPair } from '@libp2p/crypto/keys'
import type { Libp2p, PrivateKey } from '@libp2p/interface'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { seededRandom, silentLogger, systemClock } from '../../../src/base/index.ts'
import type { ContentRouter } from '../../../src/discovery/index.ts'
import { ShardsByModel } from '../../../src/replication/model-shards.ts'
import { Replication } from '../../../src/replication/service.ts'
import { defaultReplication } from '../../../src/replication/settings.ts'
import type { Policy } from '../../../src/replication/types.ts'
import { createMemoryStore } from '../../../src/storage/index.ts'
import { contentOf, load, sampleOf, settings } from '../../compliance/store-fixtures.ts'

describe('policies of this node', () => {
  it('are in force in the order in which they were asked for, however long each takes to sign', async () => {
    const random = seededRandom(1)
    const store = createMemoryStore({ clock: systemClock, random, logger: silentLogger, settings })
    const sample = sampleOf([{ path: 'a', content: contentOf(random, 1_000), sizes: [1_000] }])
    await store.start()
    await load(store, sample)
    const key = await generateKeyPair('Ed25519')
    const signMs = [50, 0, 20, 0]
    const privateKey: PrivateKey = Object.assign(Object.create(key) as PrivateKey, {
      sign: async (bytes: Uint8Array) => {
        await delay(signMs.shift() ?? 0)
        return await key.sign(bytes)
      }
    })
    const network = { peerId: peerIdFromPrivateKey(key), getPeers: () => [], unhandle: async () => undefined } as unknown as Libp2p
    const router = {} as unknown as ContentRouter // nobody is looked for before it starts
    const replication = new Replication({
      network, store, router, clock: systemClock, random, logger: silentLogger, privateKey, shards: new ShardsByModel(), pullShard: async () => { throw new Error('nothing is pulled') }, learn: async () => undefined, isBanned: () => false, noted: () => undefined
    }, { settings: { ...defaultReplication, donateBytes: 0 }, labels: {}, ledgerFile: undefined })
    try {
      const asked: Policy[] = [4, 0, 3, 2].map(target => ({ min: target, target, max: target }))
      await Promise.all(asked.map(async policy => { await replication.setPolicy(sample.cid, policy) }))
      assert.equal(replication.policyOf(sample.cid)?.target, 2)
      assert.equal(replication.saidOf(sample.cid)?.target, 2)
    } finally {
      await replication.stop()
      await store.stop()
    }
  })
})
