import assert from 'node:assert/strict'
import { connect } from 'node:net'
import type { Stream } from '@libp2p/interface'
import { INVENTORY_STREAMS_PER_PEER_MAX, KiB, MiB, STREAMS_PER_PEER_MAX, SWARM_HANDSHAKE_MS, seededRandom } from '../../../src/base/index.ts'
import { KAD_PROTOCOL } from '../../../src/discovery/network.ts'
import { BLOCK_PROTOCOL, INVENTORY_PROTOCOL, NOT_HERE, REQUEST, encodeChange, encodeHead, encodeIds, encodeRequests, encodeState } from '../../../src/transfer/messages.ts'
import { fastClock } from '../../../scripts/lib/fast-clock.ts'
import { contentOf, sampleOf } from '../../compliance/store-fixtures.ts'
import { Cluster } from '../../support/cluster.ts'
import { fakeProviders } from '../../support/fake-providers.ts'
import { HostilePeer, aboutBlocks, dataFrames, truth, type Say } from '../../support/hostile-peer.ts'
import { until } from '../../support/until.ts'

function modelOf (seed: number, blocks: number, blockBytes: number): ReturnType<typeof sampleOf> {
  return sampleOf([{ path: 'model.bin', content: contentOf(seededRandom(seed), blocks * blockBytes), sizes: Array.from({ length: blocks }, () => blockBytes) }])
}

describe('hostile: peers of no help', function () {
  this.timeout(30_000)

  it('a peer that stalls at 99 % of a block delays the load by 3 s at most', async () => {
    await using cluster = new Cluster()
    const sample = modelOf(40, 64, 256 * KiB)
    let stalled = 0
    await using staller = await HostilePeer.start({
      swarmKey: cluster.swarmKey,
      answer: aboutBlocks(({ id, bytes = new Uint8Array(100) }, say) => {
        if (stalled++ > 0) return
        say(encodeHead(id, bytes.length), ...dataFrames(id, bytes.subarray(0, Math.floor(bytes.length * 0.99))))
      })
    })
    staller.give(sample)
    const source = await HostilePeer.start({ swarmKey: cluster.swarmKey })
    source.give(sample)
    const [honest, alone, beset] = await cluster.spawn(3, position => position === 0 ? { settings: { transfer: { uploadBytesPerSecond: 16 * MiB } } } : {})
    assert.ok(honest !== undefined && alone !== undefined && beset !== undefined)
    await honest.connect(source.address)
    await honest.load(sample.cid)
    await source[Symbol.asyncDispose]()
    const address = honest.multiaddrs()[0] ?? ''
    await alone.connect(address)
    const without = await alone.load(sample.cid)
    await cluster.kill(alone)
    await beset.connect(address)
    await beset.connect(staller.address)
    const started = performance.now()
    const result = await beset.load(sample.cid)
    const seconds = (performance.now() - started) / 1000
    assert.ok(stalled > 0, 'the staller was never asked, so this showed nothing')
    assert.deepEqual(result.peers, { [honest.peerId]: sample.bytes })
    assert.ok(seconds < without.seconds + 3, `${seconds.toFixed(1)} s with the staller, ${without.seconds.toFixed(1)} s without`)
    assert.deepEqual((await beset.verify()).bad, [])
  })

  it('peers that claim everything and give nothing do not keep a load from ending', async () => {
    await using cluster = new Cluster()
    const sample = modelOf(41, 64, 64 * KiB)
    let refused = 0
    let ignored = 0
    await using denier = await HostilePeer.start({ swarmKey: cluster.swarmKey, answer: aboutBlocks(({ id }, say) => { refused++; say(...encodeIds(NOT_HERE, [id])) }) })
    await using mute = await HostilePeer.start({ swarmKey: cluster.swarmKey, answer: aboutBlocks(() => { ignored++ }) })
    await using silent = await HostilePeer.start({ swarmKey: cluster.swarmKey, answer: () => undefined, inventory: () => undefined })
    await using honest = await HostilePeer.start({ swarmKey: cluster.swarmKey })
    const [node] = await cluster.spawn(1)
    assert.ok(node !== undefined)
    for (const peer of [denier, mute, silent, honest]) {
      peer.give(sample)
      if (peer !== honest) await node.connect(peer.address)
    }
    const open = await node.open(sample.cid)
    await until('both claimers were asked', () => refused >= 64 && ignored > 0, { withinMs: 8_000 })
    const started = performance.now()
    await node.connect(honest.address)
    const result = await open.done
    open.close()
    assert.deepEqual(result.peers, { [honest.id]: sample.bytes })
    assert.ok(performance.now() - started < 6_000, 'the load took long to find the one who gives')
    assert.ok(refused < 1_000, `asked for what it had said it lacks ${refused} times`)
  })

  it('a peer that lacks a block, and has it, and lacks it, is asked for it now and then, and in the end gives it', async () => {
    const times = 5
    await using cluster = new Cluster({ clock: fastClock(times) })
    const sample = modelOf(46, 8, 64 * KiB)
    const blocks = [...sample.files[0]?.index.value.blocks ?? []].map(String)
    const askedAt = new Map<string, number[]>()
    let tell: Say | undefined
    await using wavering = await HostilePeer.start({
      swarmKey: cluster.swarmKey,
      inventory: (_model, say) => {
        tell = say
        say(encodeState({ known: true, complete: false }), encodeChange({ file: 0, have: blocks.map((_, block) => block), lost: [] }))
      },
      answer: aboutBlocks((asked, say) => {
        const times = [...askedAt.get(asked.cid.toString()) ?? [], performance.now()]
        askedAt.set(asked.cid.toString(), times)
        if (times.length > 1) { truth(asked, say); return }
        say(...encodeIds(NOT_HERE, [asked.id]))
        setTimeout(() => { tell?.(encodeChange({ file: 0, have: [blocks.indexOf(asked.cid.toString())], lost: [] })) }, 5)
      })
    })
    wavering.give(sample)
    const [node] = await cluster.spawn(1)
    assert.ok(node !== undefined)
    await node.connect(wavering.address)
    assert.deepEqual((await node.load(sample.cid)).peers, { [wavering.id]: sample.bytes })
    for (const [first = 0, second = 0] of askedAt.values()) assert.ok(second - first > 9_000 / times, `asked again after ${second - first} ms`)
  })

  it('a peer that is heard of, but never with what was asked for, delays nobody', async () => {
    await using cluster = new Cluster()
    const sample = modelOf(43, 64, 256 * KiB)
    const trickling = new Set<NodeJS.Timeout>()
    await using chatterer = await HostilePeer.start({
      swarmKey: cluster.swarmKey,
      answer: aboutBlocks(({ id, bytes = new Uint8Array(100) }, say) => {
        if (trickling.size > 0) return
        say(encodeHead(id, bytes.length))
        let at = 0
        trickling.add(setInterval(() => { say(...dataFrames(id, bytes.subarray(at, ++at))) }, 300)) // cancelled or not
      })
    })
    await using honest = await HostilePeer.start({ swarmKey: cluster.swarmKey })
    const [node] = await cluster.spawn(1)
    assert.ok(node !== undefined)
    try {
      chatterer.give(sample)
      honest.give(sample)
      await node.connect(chatterer.address)
      const open = await node.open(sample.cid)
      await until('the chatterer was asked', () => trickling.size > 0, { withinMs: 8_000 })
      await node.connect(honest.address)
      const started = performance.now()
      const result = await open.done
      open.close()
      assert.deepEqual(result.peers, { [honest.id]: sample.bytes })
      assert.ok(performance.now() - started < 20_000, `${performance.now() - started} ms`)
    } finally {
      for (const timer of trickling) clearInterval(timer)
    }
  })

  it('ten that crawl leave slots to one that is fast', async () => {
    await using cluster = new Cluster()
    const sample = modelOf(44, 48, 4 * MiB)
    const timers = new Set<NodeJS.Timeout>()
    await using peers = new AsyncDisposableStack()
    const paced = async (bytesPerTick: number, tickMs: number): Promise<HostilePeer> => {
      const queue: Array<() => void> = []
      timers.add(setInterval(() => { queue.shift()?.() }, tickMs))
      const answer = aboutBlocks(({ id, bytes = new Uint8Array(100) }, say) => {
        queue.push(() => { say(encodeHead(id, bytes.length)) })
        for (let at = 0; at < bytes.length; at += bytesPerTick) queue.push(() => { say(...dataFrames(id, bytes.subarray(at, at + bytesPerTick))) })
      })
      return peers.use(await HostilePeer.start({ swarmKey: cluster.swarmKey, answer })).give(sample)
    }
    const [node] = await cluster.spawn(1)
    assert.ok(node !== undefined)
    try {
      for (let i = 0; i < 10; i++) await node.connect((await paced(16 * KiB, 160)).address) // 100 KiB a second
      const fast = await paced(256 * KiB, 10)
      await node.connect(fast.address)
      const { peers, seconds } = await node.load(sample.cid)
      assert.ok((peers[fast.id] ?? 0) > sample.bytes * 0.7, `${peers[fast.id]} bytes came from who is fast`)
      assert.ok(seconds < 25, `${seconds} s where the fast one takes 8`)
    } finally {
      for (const timer of timers) clearInterval(timer)
    }
  })

  it('a holder that trickles a file index is not waited for', async () => {
    await using cluster = new Cluster()
    const sample = modelOf(45, 4, 64 * KiB)
    const index = sample.files[0]?.index.cid.toString()
    const timers = new Set<NodeJS.Timeout>()
    await using trickler = await HostilePeer.start({
      swarmKey: cluster.swarmKey,
      answer: (asked, say) => {
        const { id, bytes } = asked
        if (asked.cid.toString() !== index || bytes === undefined) { truth(asked, say); return }
        say(encodeHead(id, bytes.length))
        let at = 0
        timers.add(setInterval(() => { say(...dataFrames(id, bytes.subarray(at, ++at))) }, 500))
      }
    })
    await using honest = await HostilePeer.start({ swarmKey: cluster.swarmKey })
    const [node] = await cluster.spawn(1)
    assert.ok(node !== undefined)
    try {
      trickler.give(sample)
      honest.give(sample)
      await node.connect(trickler.address)
      const loading = node.load(sample.cid, { providerTimeoutMs: 8_000 })
      await until('the trickler was asked for the index', () => timers.size > 0, { withinMs: 8_000 })
      await node.connect(honest.address)
      assert.equal((await loading).bytes, sample.bytes)
    } finally {
      for (const timer of timers) clearInterval(timer)
    }
  })

  it('a load from liars only ends with NoProviderError, not never', async () => {
    await using cluster = new Cluster({ settings: { transfer: { stallTimeoutMs: 1_500, requestTimeoutMs: 500 } } })
    const sample = modelOf(42, 8, 64 * KiB)
    await using denier = await HostilePeer.start({ swarmKey: cluster.swarmKey, answer: aboutBlocks(({ id }, say) => { say(...encodeIds(NOT_HERE, [id])) }) })
    denier.give(sample)
    const [node] = await cluster.spawn(1)
    assert.ok(node !== undefined)
    await node.connect(denier.address)
    await assert.rejects(node.load(sample.cid), { name: 'NoProviderError' })
  })
})

describe('hostile: floods', function () {
  this.timeout(30_000)

  it('of requests whose answers nobody reads: memory stays bounded, others are served', async () => {
    await using cluster = new Cluster()
    const sample = modelOf(50, 16, MiB)
    await using source = await HostilePeer.start({ swarmKey: cluster.swarmKey })
    source.give(sample)
    const [server, loader] = await cluster.spawn(2)
    assert.ok(server !== undefined && loader !== undefined)
    await server.connect(source.address)
    await server.load(sample.cid)
    const address = server.multiaddrs()[0] ?? ''
    await loader.connect(address)
    await using flooder = await HostilePeer.start({ swarmKey: cluster.swarmKey })
    await flooder.connect(address)
    const blocks = [...sample.files[0]?.index.value.blocks ?? []]
    const before = process.memoryUsage().rss
    const gone: number[] = []
    for (let at = 0; at < 8; at++) {
      const stream = await flooder.open(server.peerId, BLOCK_PROTOCOL)
      stream.pause()
      stream.addEventListener('close', () => { gone.push(at) })
      for (let round = 0; round < 40 && stream.status === 'open'; round++) {
        const wanted = Array.from({ length: 200 }, (_, i) => ({ id: round * 200 + i + 1, cid: blocks[i % blocks.length] ?? sample.model.manifest.cid }))
        stream.send(Buffer.concat(encodeRequests(REQUEST, wanted)))
      }
    }
    const result = await loader.load(sample.cid)
    assert.equal(result.bytes, sample.bytes)
    const grown = process.memoryUsage().rss - before
    // Both ends live in this process, and so does what the loader took in.
    assert.ok(grown < 256 * MiB, `memory grew by ${(grown / MiB).toFixed(0)} MiB under 64,000 requests for 1 MiB each`)
  })

  it('of requests for what is not here end in a ban', async () => {
    await using cluster = new Cluster()
    const [server] = await cluster.spawn(1)
    assert.ok(server !== undefined)
    await using flooder = await HostilePeer.start({ swarmKey: cluster.swarmKey })
    await flooder.connect(server.multiaddrs()[0] ?? '')
    const { cid } = modelOf(51, 1, KiB).model.manifest
    const stream = await flooder.open(server.peerId, BLOCK_PROTOCOL)
    for (let id = 1; id < 60_000 && stream.status === 'open'; id += 200) {
      if (!stream.send(Buffer.concat(encodeRequests(REQUEST, Array.from({ length: 200 }, (_, i) => ({ id: id + i, cid })))))) await new Promise(resolve => { setTimeout(resolve, 1) })
    }
    await until('the flooder is banned', () => server.peers().some(peer => peer.peerId === flooder.id && peer.banned), { withinMs: 8_000 })
    const again = await flooder.open(server.peerId, BLOCK_PROTOCOL).catch(() => undefined)
    await until('its streams are refused', () => again === undefined || again.status !== 'open', { withinMs: 8_000 })
  })

  it('of streams are cut off, and the server serves on', async () => {
    await using cluster = new Cluster()
    const sample = modelOf(52, 4, 64 * KiB)
    await using source = await HostilePeer.start({ swarmKey: cluster.swarmKey })
    source.give(sample)
    const [server, loader] = await cluster.spawn(2)
    assert.ok(server !== undefined && loader !== undefined)
    await server.connect(source.address)
    await server.load(sample.cid)
    await using flooder = await HostilePeer.start({ swarmKey: cluster.swarmKey })
    await flooder.connect(server.multiaddrs()[0] ?? '')
    const streams: Stream[] = []
    for (let i = 0; i < 2_000; i++) {
      const stream = await flooder.open(server.peerId, i % 2 === 0 ? BLOCK_PROTOCOL : INVENTORY_PROTOCOL).catch(() => undefined)
      if (stream === undefined) break // cut off for good
      streams.push(stream)
    }
    const most = STREAMS_PER_PEER_MAX + INVENTORY_STREAMS_PER_PEER_MAX
    await until('no more streams are open than one peer may have', () => streams.filter(stream => stream.status === 'open').length <= most, { withinMs: 8_000 })
    await loader.connect(server.multiaddrs()[0] ?? '')
    assert.equal((await loader.load(sample.cid)).bytes, sample.bytes)
  })
})

describe('hostile: connections that say nothing', function () {
  this.timeout(30_000)

  it('are closed after the deadline of the swarm key exchange, and others get in meanwhile', async () => {
    const times = 2.5
    await using cluster = new Cluster({ transport: 'tcp', clock: fastClock(times) })
    const [server, other] = await cluster.spawn(2)
    assert.ok(server !== undefined && other !== undefined)
    const port = Number(/tcp\/(\d+)/.exec(server.multiaddrs()[0] ?? '')?.[1])
    const sockets = Array.from({ length: 100 }, () => connect({ port, host: '127.0.0.1' }))
    let closed = 0
    try {
      for (const [at, socket] of sockets.entries()) {
        socket.on('error', () => undefined).on('close', () => { closed++ }).resume()
        // Half of them say something, slowly, and it is no key exchange yet.
        if (at % 2 === 0) socket.once('connect', () => { socket.write('/shoal/sw') })
      }
      await other.connect(server.multiaddrs()[0] ?? '')
      assert.equal(server.peers().filter(peer => peer.connected).length, 1)
      await until('all silent connections are closed', () => closed === sockets.length, { withinMs: SWARM_HANDSHAKE_MS / times + 3_000 })
    } finally {
      for (const socket of sockets) socket.destroy()
    }
  })
})

describe('hostile: liars in the DHT', function () {
  this.timeout(30_000)

  it('a hundred fake providers do not hide the real one', async () => {
    await using cluster = new Cluster()
    const sample = modelOf(60, 4, 64 * KiB)
    const source = await HostilePeer.start({ swarmKey: cluster.swarmKey })
    source.give(sample)
    const [holder, between, loader] = await cluster.spawn(3)
    assert.ok(holder !== undefined && between !== undefined && loader !== undefined)
    await holder.connect(source.address)
    await holder.load(sample.cid)
    await source[Symbol.asyncDispose]()
    await cluster.connect([holder, between])
    // The holder's record has to be with the others before anybody looks.
    await until('it is announced', async () => (await holder.status()).announce.announced > 0)
    const answer = await fakeProviders(100)
    let asked = 0
    await using liar = await HostilePeer.start({ swarmKey: cluster.swarmKey })
    await liar.network.unhandle(KAD_PROTOCOL)
    await liar.network.handle(KAD_PROTOCOL, stream => {
      // Whoever asked may have called it off by then.
      stream.addEventListener('message', () => { asked++; if (stream.writeStatus === 'writable') stream.send(answer) })
    })
    await loader.connect(liar.address)
    await loader.connect(between.multiaddrs()[0] ?? '')
    const result = await loader.load(sample.cid)
    assert.deepEqual(result.peers, { [holder.peerId]: sample.bytes })
    assert.ok(asked > 0, 'the liar was never asked, so this showed nothing')
  })
})
