import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { lpStream } from '@libp2p/utils'
import { CID } from 'multiformats/cid'
import { systemClock, systemRandom, type Clock } from '../../../src/base/index.ts'
import { contactOf } from '../../../src/discovery/contact.ts'
import { compareDistance, dhtDigest, kadIdOfDigest } from '../../../src/discovery/dht-key.ts'
import { createDhtRouter, dhtKey } from '../../../src/discovery/index.ts'
import { KAD_PROTOCOL } from '../../../src/discovery/network.ts'
import { collect, randomCid } from '../../compliance/router.ts'
import { Swarm } from './swarm.ts'
import { until } from '../../support/until.ts'

describe('announcing in the DHT', () => {
  const swarms: Swarm[] = []
  const swarmOf = async (count: number, init: ConstructorParameters<typeof Swarm>[0] = {}): Promise<Swarm> => {
    const swarm = new Swarm(init)
    swarms.push(swarm)
    await swarm.spawn(count)
    return swarm
  }
  afterEach(async () => { await Promise.all(swarms.splice(0).map(async swarm => { await swarm.stop() })) })

  const announced = async (swarm: Swarm, position: number, withinMs = 20_000): Promise<void> => {
    await until('it is announced', () => {
      const { backlog, sweptAt } = swarm.node(position).router.status()
      return backlog === 0 && sweptAt !== undefined
    }, { withinMs })
  }

  it('works between two nodes over TCP, and tells where the provider is', async () => {
    const swarm = await swarmOf(2, { transport: 'tcp' })
    const cid = randomCid()
    swarm.node(0).router.announce([cid])
    await swarm.connect()
    await announced(swarm, 0)
    for await (const provider of swarm.node(1).router.findProviders(cid)) {
      assert.equal(provider.peerId, swarm.node(0).peerId)
      assert.deepEqual(provider.multiaddrs.map(address => `${address}/p2p/${provider.peerId}`), swarm.node(0).network.getMultiaddrs().map(String))
    }
  })

  it('meets those around it also when it is connected late, and at the same time as they are', async () => {
    const swarm = await swarmOf(4)
    // kad-dht has looked around by then, and looks again in five minutes.
    await new Promise(resolve => { setTimeout(resolve, 2_000) })
    await swarm.connect()
    await until('all are connected', () => swarm.nodes.every(({ network }) => network.getPeers().length === 3))
  })

  it('waits for a first peer, and is prompt when it comes', async () => {
    const swarm = await swarmOf(2)
    const cids = Array.from({ length: 20 }, () => randomCid())
    swarm.node(0).router.announce(cids)
    swarm.node(0).router.announce([randomCid()], { urgent: true })
    await until('21 wait', () => swarm.node(0).router.status().backlog === 21)
    assert.deepEqual(await collect(swarm.node(0).router.findProviders(randomCid())), [])
    assert.deepEqual([swarm.node(0).router.status().announced, swarm.node(0).router.status().failed], [0, 0])
    const started = performance.now()
    await swarm.connect()
    await announced(swarm, 0)
    assert.ok(performance.now() - started < 3_000)
  })

  it('tells at once whoever is connected, though it has not yet said what it speaks', async () => {
    for (let round = 0; round < 5; round++) {
      const swarm = await swarmOf(2)
      const cid = randomCid()
      await swarm.connect()
      swarm.node(1).router.announce([cid], { urgent: true })
      await swarm.node(1).router.sent(cid)
      assert.deepEqual(await collect(swarm.node(0).router.findProviders(cid)), [swarm.node(1).peerId])
    }
  })

  it('is found by a node that came after, when those who were told are gone', async () => {
    const swarm = await swarmOf(2)
    await swarm.connect()
    const cid = randomCid()
    swarm.node(0).router.announce([cid])
    await announced(swarm, 0)
    await swarm.kill(1)
    const [late] = await swarm.spawn(1)
    await late?.network.dial(swarm.node(0).network.getMultiaddrs()[0] ?? assert.fail())
    assert.deepEqual(await collect(swarm.node(2).router.findProviders(cid)), [swarm.node(0).peerId])
    swarm.node(0).router.withdraw([cid])
    await until('it is found no more', async () => (await collect(swarm.node(2).router.findProviders(cid))).length === 0)
  })

  it('puts the records of a large swarm where Kademlia looks for them', async () => {
    const swarm = await swarmOf(1)
    // Each with each, one after another: Kademlia would find them by itself, but on a loaded machine not within a minute.
    while (swarm.nodes.length < 25) {
      const [late] = await swarm.spawn(1)
      for (const early of swarm.nodes.slice(0, -1)) await swarm.connect([early, late ?? assert.fail()])
    }
    await until('all have twenty peers', () => swarm.nodes.every(({ network }) => network.getPeers().length >= 20), { withinMs: 50_000 })
    const cids = Array.from({ length: 100 }, () => randomCid())
    const announcer = swarm.node(24)
    announcer.router.announce(cids)
    await announced(swarm, 24, 50_000)
    const contacts = swarm.nodes.filter(node => node !== announcer).map(({ network }) => ({ network, contact: contactOf(network.peerId) }))
    let right = 0
    for (const cid of cids) {
      const place = kadIdOfDigest(dhtDigest(cid))
      const nearest = [...contacts].sort((a, b) => compareDistance(place, a.contact.kadId, b.contact.kadId)).slice(0, 20)
      for (const { network } of nearest) if ((await network.services.records.providersOf(dhtDigest(cid))).includes(announcer.peerId)) right++
    }
    assert.ok(right / (cids.length * 20) > 0.95, `${right} of ${cids.length * 20} records are where they belong`)
    for (const cid of cids.slice(0, 20)) assert.deepEqual(await collect(swarm.node(3).router.findProviders(cid)), [announcer.peerId])
    // kad-dht's own search finds them as well.
    let found = false
    for await (const event of swarm.node(7).network.services.dht.findProviders(dhtKey(cids[0] ?? assert.fail()))) {
      if (event.name === 'PROVIDER' && event.providers.some(provider => provider.id.toString() === announcer.peerId)) found = true
    }
    assert.ok(found)
  }).timeout(120_000) // both waits, on a loaded machine that takes long to make so many connections

  it('renews what is kept within the period, and no longer what was withdrawn', async () => {
    const swarm = await swarmOf(2, { periodMs: 1_500 })
    await swarm.connect()
    const [kept, dropped] = [Array.from({ length: 10 }, () => randomCid()), Array.from({ length: 10 }, () => randomCid())]
    const { router } = swarm.node(0)
    const added: string[] = []
    const { records } = swarm.node(1).network.services
    const put = records.put.bind(records)
    records.put = async (key, value, options) => {
      if (key.toString().startsWith('/dht/provider/')) added.push(key.toString())
      return await put(key, value, options)
    }
    router.announce([...kept, ...dropped])
    await announced(swarm, 0)
    assert.equal(new Set(added).size, 20)
    router.withdraw(dropped)
    added.length = 0
    const started = performance.now()
    await until('all ten are added', () => new Set(added).size === 10)
    // A moment longer than the period, for the last ones.
    assert.ok(performance.now() - started < 2_500)
    await until('all are added again', () => added.length >= 20)
    assert.equal(new Set(added).size, 10)
  })

  it('keeps its queue over a restart of the whole node', async () => {
    const swarm = await swarmOf(2, { onDisk: true })
    const cids = Array.from({ length: 30 }, () => randomCid())
    swarm.node(0).router.announce(cids)
    swarm.node(0).router.withdraw(cids.slice(0, 10))
    const { peerId } = swarm.node(0)
    await swarm.kill(0)
    await swarm.node(0).network.start()
    await swarm.restartRouter(0)
    assert.equal(swarm.node(0).network.peerId.toString(), peerId)
    assert.equal(swarm.node(0).router.status().keys, 20)
    await swarm.connect()
    await announced(swarm, 0)
    assert.deepEqual(await collect(swarm.node(1).router.findProviders(cids[29] ?? assert.fail())), [peerId])
    assert.deepEqual(await collect(swarm.node(1).router.findProviders(cids[0] ?? assert.fail())), [])
  })

  for (const [way, hours] of [['ahead', 48], ['behind', -48]] as const) {
    it(`works with a clock two days ${way}, and when it is set right`, async () => {
      let offset = hours * 3_600_000
      const clock: Clock = { ...systemClock, now: () => systemClock.now() + offset }
      const swarm = await swarmOf(2, { clock, onDisk: true })
      await swarm.connect()
      const [before, after] = [randomCid(), randomCid()]
      swarm.node(0).router.announce([before])
      await announced(swarm, 0)
      offset = 0
      await swarm.restartRouter(0)
      swarm.node(0).router.announce([after])
      await announced(swarm, 0)
      for (const cid of [before, after]) assert.deepEqual(await collect(swarm.node(1).router.findProviders(cid)), [swarm.node(0).peerId])
      // Everything is due within a period from now, whatever the clock said before.
      assert.equal(swarm.node(0).router.status().lagMs, 0)
    })
  }

  it('tells the truth about peers that take nothing, and tries again', async () => {
    const swarm = await swarmOf(2)
    const { records } = swarm.node(1).network.services
    const put = records.put.bind(records)
    let refusing = true
    records.put = async (key, value, options) => {
      if (refusing && key.toString().startsWith('/dht/provider/')) throw new Error('full')
      return await put(key, value, options)
    }
    const cid = randomCid()
    swarm.node(0).router.announce([cid])
    await swarm.connect()
    await until('one fails', () => swarm.node(0).router.status().failed > 0)
    assert.deepEqual([swarm.node(0).router.status().backlog, swarm.node(0).router.status().announced], [1, 0])
    assert.ok(swarm.node(0).router.status().lagMs > 0)
    refusing = false
    await announced(swarm, 0)
    assert.deepEqual(await collect(swarm.node(1).router.findProviders(cid)), [swarm.node(0).peerId])
  })

  it('is not held up by a peer that never answers', async () => {
    const hasty: Clock = { ...systemClock, setTimeout: (fn, delayMs) => systemClock.setTimeout(fn, delayMs / 10) }
    const swarm = await swarmOf(4, { clock: hasty })
    await swarm.connect()
    const mute = swarm.node(3).network
    await mute.unhandle(KAD_PROTOCOL)
    await mute.handle(KAD_PROTOCOL, () => undefined)
    const cid = randomCid()
    const started = performance.now()
    swarm.node(1).router.announce([cid], { urgent: true })
    for await (const provider of swarm.node(2).router.findProviders(cid)) {
      assert.equal(provider.peerId, swarm.node(1).peerId)
      break
    }
    await until('it is found', async () => {
      for await (const provider of swarm.node(2).router.findProviders(cid)) return provider.peerId === swarm.node(1).peerId
      return false
    })
    assert.ok(performance.now() - started < 3_000)
    await until('it is announced', () => swarm.node(1).router.status().announced === 1)
  })

  it('finds the honest provider behind one that names hundreds', async () => {
    const swarm = await swarmOf(4)
    await swarm.connect()
    const cid = randomCid()
    swarm.node(1).router.announce([cid])
    await announced(swarm, 1)
    const liar = swarm.node(3).network
    const others = await Promise.all(Array.from({ length: 300 }, async () => {
      const { generateKeyPair } = await import('@libp2p/crypto/keys')
      const { peerIdFromPrivateKey } = await import('@libp2p/peer-id')
      return peerIdFromPrivateKey(await generateKeyPair('Ed25519')).toMultihash().bytes
    }))
    const field = (tag: number, bytes: Uint8Array): Buffer => Buffer.concat([Buffer.of(tag), bytes.length < 128 ? Buffer.of(bytes.length) : Buffer.of(bytes.length & 0x7f | 0x80, bytes.length >> 7), bytes])
    const lie = Buffer.concat([Buffer.of(8, 3), ...others.map(id => field(0x4a, field(0x0a, id)))])
    await liar.unhandle(KAD_PROTOCOL)
    await liar.handle(KAD_PROTOCOL, async stream => {
      const frames = lpStream(stream)
      await frames.read()
      await frames.write(lie)
    })
    const found = await collect(swarm.node(2).router.findProviders(cid))
    assert.ok(found.includes(swarm.node(1).peerId))
    assert.ok(found.length <= 1 + 128, `${found.length} found`)
  })

  it('survives garbage in answers and in announcements', async () => {
    const swarm = await swarmOf(3)
    await swarm.connect()
    const cid = randomCid()
    swarm.node(1).router.announce([cid])
    await announced(swarm, 1)
    const hostile = swarm.node(0).network
    for (let round = 0; round < 20; round++) {
      const stream = await hostile.dialProtocol(swarm.node(1).network.peerId, KAD_PROTOCOL)
      stream.addEventListener('close', () => undefined)
      stream.send(systemRandom.bytes(1 + round * 50))
      await stream.close().catch(() => undefined) // reset by the other side
    }
    await hostile.unhandle(KAD_PROTOCOL)
    await hostile.handle(KAD_PROTOCOL, stream => { stream.send(systemRandom.bytes(300)) })
    assert.deepEqual(await collect(swarm.node(2).router.findProviders(cid)), [swarm.node(1).peerId])
  })

  it('keeps keys due while this node has no address to tell', async () => {
    const swarm = await swarmOf(1)
    const [deaf] = await swarm.spawn(1, { listen: [] })
    await deaf?.network.dial(swarm.node(0).network.getMultiaddrs()[0] ?? assert.fail())
    deaf?.router.announce([randomCid()])
    await until('one fails', () => (deaf?.router.status().failed ?? 0) > 0)
    assert.equal(deaf?.router.status().backlog, 1)
  })

  it('names itself over the DHT only while it runs', async () => {
    const swarm = await swarmOf(2)
    const { network } = swarm.node(0)
    const router = createDhtRouter({ network, clock: systemClock, random: systemRandom, logger: { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined, child: () => assert.fail() }, settings: { periodMs: 60_000, concurrency: 1 } })
    await swarm.node(0).router.stop()
    await router.start()
    const cid = CID.parse(randomCid().toString())
    router.announce([cid])
    await swarm.connect()
    await until('it is found', async () => (await collect(swarm.node(1).router.findProviders(cid))).length === 1)
    await router.stop()
  })

  it('leaves nothing behind: a process ends by itself after stop()', async () => {
    const script = `
      import { Swarm } from '${import.meta.dirname}/swarm.ts'
      import { randomCid } from '${import.meta.dirname}/../../compliance/router.ts'
      import { until } from '${import.meta.dirname}/../../support/until.ts'
      for (const transport of ['tcp', 'memory']) {
        const swarm = new Swarm({ transport, onDisk: true })
        await swarm.spawn(3)
        await swarm.connect()
        swarm.node(0).router.announce([randomCid()], { urgent: true })
        await until('something is announced', () => swarm.node(0).router.status().announced > 0)
        await swarm.stop()
      }
      const at = Date.now()
      process.on('exit', () => { console.log(Date.now() - at < 1500 ? 'clean' : 'late') })`
    const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module-typescript', '-e', script], { timeout: 20_000 })
    assert.equal(stdout.trim(), 'clean')
  })
})
