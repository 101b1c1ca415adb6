import assert from 'node:assert/strict'
import { generateKeyPairFromSeed } from '@libp2p/crypto/keys'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { multiaddr } from '@multiformats/multiaddr'
import { silentLogger, systemClock } from '../../../src/base/index.ts'
import { CalmPeerStore } from '../../../src/discovery/calm-peer-store.ts'
import { createNetwork, type Network } from '../../../src/discovery/network.ts'

const other = peerIdFromPrivateKey(await generateKeyPairFromSeed('Ed25519', new Uint8Array(32).fill(2)))
const ADDRESSES = [multiaddr('/ip4/10.0.0.1/tcp/4001'), multiaddr('/ip4/10.0.0.2/tcp/4001')] as const

describe('the calm peer store', () => {
  let network: Network
  let calm: CalmPeerStore
  let now: number
  let reads: number
  let merges: number
  beforeEach(async () => {
    network = await createNetwork({ listen: ['/memory/calm'], transport: 'memory', openSwarm: true, maxConnections: 10, inboundPerSecond: 100, logger: silentLogger })
    now = reads = merges = 0
    const get = network.peerStore.get.bind(network.peerStore)
    const merge = network.peerStore.merge.bind(network.peerStore)
    network.peerStore.get = async (...args) => { reads++; return await get(...args) }
    network.peerStore.merge = async (...args) => { merges++; return await merge(...args) }
    calm = new CalmPeerStore(network.peerStore, network, { ...systemClock, monotonic: () => now })
  })
  afterEach(async () => { await network.stop() })

  it('reads a peer once, and again after a while; of what changed it is told, whoever changed it', async () => {
    await assert.rejects(async () => await calm.get(other), { name: 'NotFoundError' })
    await network.peerStore.merge(other, { multiaddrs: [ADDRESSES[0]] })
    assert.deepEqual((await calm.getInfo(other)).multiaddrs.map(String), [String(ADDRESSES[0])])
    const before = reads
    for (let i = 0; i < 100; i++) await calm.getInfo(other)
    assert.equal(reads, before)
    await network.peerStore.merge(other, { multiaddrs: [ADDRESSES[1]] })
    assert.deepEqual((await calm.getInfo(other)).multiaddrs.map(String), ADDRESSES.map(String))
    assert.equal(reads, before)
    assert.equal(await calm.has(other), true)
    now = 61_000
    await calm.get(other)
    assert.equal(reads, before + 1)
    await calm.delete(other)
    assert.equal(await calm.has(other), false)
    await assert.rejects(async () => await calm.get(other), { name: 'NotFoundError' })
  })

  it('writes the same addresses once a minute', async () => {
    for (let i = 0; i < 100; i++) await calm.merge(other, { multiaddrs: [ADDRESSES[0]] })
    assert.equal(merges, 1)
    await calm.merge(other, { multiaddrs: [ADDRESSES[1]] })
    assert.equal(merges, 2)
    now = 61_000
    await calm.merge(other, { multiaddrs: [ADDRESSES[1]] })
    assert.equal(merges, 3)
  })

  it('notes a protocol once a minute, and one more at once', async () => {
    await calm.merge(other, { protocols: ['/a/1', '/b/1'] })
    assert.equal(merges, 1)
    for (let i = 0; i < 100; i++) assert.deepEqual((await calm.merge(other, { protocols: ['/b/1'] })).protocols, ['/a/1', '/b/1'])
    assert.equal(merges, 1)
    await calm.merge(other, { protocols: ['/c/1'] })
    assert.equal(merges, 2)
    assert.deepEqual((await network.peerStore.get(other)).protocols, ['/a/1', '/b/1', '/c/1'])
    await calm.patch(other, { protocols: ['/a/1'] })
    await calm.merge(other, { protocols: ['/c/1'] })
    assert.equal(merges, 3)
    now = 61_000
    await calm.merge(other, { protocols: ['/c/1'] })
    assert.equal(merges, 4)
  })

  it('stands in the place of libp2p\'s own', async () => {
    assert(network.peerStore instanceof CalmPeerStore)
    const { components } = network as unknown as { components: { peerStore: unknown } }
    assert.equal(components.peerStore, network.peerStore)
  })
})
