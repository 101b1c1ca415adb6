import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { multiaddr, type Multiaddr } from '@multiformats/multiaddr'
import { silentLogger, systemClock, systemRandom, type Clock } from '../../../src/base/index.ts'
import { createNetwork, type Network, type NetworkInit } from '../../../src/discovery/index.ts'

/** Fifty times as fast for timers, so that a deadline of 5 s can be waited for. */
const hastyClock: Clock = { ...systemClock, setTimeout: (fn, delayMs) => systemClock.setTimeout(fn, delayMs / 50) }

describe('the swarm key', () => {
  const networks: Network[] = []
  const key = systemRandom.bytes(32)

  const start = async (init: Partial<NetworkInit>): Promise<Network> => {
    const network = await createNetwork({ listen: ['/ip4/127.0.0.1/tcp/0'], transport: 'tcp', maxConnections: 10, inboundPerSecond: 100, logger: silentLogger, ...init })
    await network.start()
    networks.push(network)
    return network
  }
  const addressOf = (network: Network): Multiaddr => network.getMultiaddrs()[0] ?? assert.fail()
  const portOf = (network: Network): number => Number(/tcp\/(\d+)/.exec(addressOf(network).toString())?.[1])

  afterEach(async () => { await Promise.all(networks.splice(0).map(async network => { await network.stop() })) })

  for (const transport of ['tcp', 'memory'] as const) {
    it(`lets those in who have it (${transport})`, async () => {
      const listen = (name: string): string[] => transport === 'tcp' ? ['/ip4/127.0.0.1/tcp/0'] : [`/memory/key-${name}`]
      const a = await start({ swarmKey: key, transport, listen: listen('a') })
      const b = await start({ swarmKey: key, transport, listen: listen('b') })
      const connection = await b.dial(addressOf(a))
      assert.equal(connection.remotePeer.toString(), a.peerId.toString())
      assert.ok(await b.services.ping.ping(a.peerId) >= 0)
    })

    it(`refuses another key at once, both ways, and tells the dialler (${transport})`, async () => {
      const listen = (name: string): string[] => transport === 'tcp' ? ['/ip4/127.0.0.1/tcp/0'] : [`/memory/other-${name}`]
      const a = await start({ swarmKey: key, transport, listen: listen('a') })
      const b = await start({ swarmKey: systemRandom.bytes(32), transport, listen: listen('b') })
      const started = performance.now()
      await assert.rejects(b.dial(addressOf(a)), { name: 'SwarmKeyError', message: /another swarm key/ })
      await assert.rejects(a.dial(addressOf(b)), { name: 'SwarmKeyError', message: /another swarm key/ })
      assert.ok(performance.now() - started < 2_000)
      assert.deepEqual([a.getConnections().length, b.getConnections().length], [0, 0])
    })
  }

  it('keeps open and private swarms apart, both ways', async () => {
    const closed = await start({ swarmKey: key })
    const open = await start({ openSwarm: true })
    const started = performance.now()
    await assert.rejects(open.dial(addressOf(closed)), { name: 'EncryptionFailedError' })
    await assert.rejects(closed.dial(addressOf(open)), (error: Error) => ['SwarmKeyError', 'PeerGoneError'].includes(error.name) && /open swarm/.test(error.message))
    assert.ok(performance.now() - started < 4_000)
    assert.deepEqual([closed.getConnections().length, open.getConnections().length], [0, 0])
  })

  it('must be there unless the swarm is open, and have 32 bytes', async () => {
    await assert.rejects(start({}), { name: 'ConfigError', message: /swarm key is missing/ })
    await assert.rejects(start({ swarmKey: key, openSwarm: true }), { name: 'ConfigError' })
    await assert.rejects(start({ swarmKey: new Uint8Array(16) }), { name: 'ConfigError', message: /32 bytes/ })
  })

  it('drops one that says nothing, at the deadline', async () => {
    const network = await start({ swarmKey: key, clock: hastyClock })
    const socket = connect(portOf(network), '127.0.0.1')
    let heard = 0
    socket.on('data', data => { heard += data.length })
    const started = performance.now()
    await closed(socket)
    const waited = performance.now() - started
    assert.ok(waited > 50 && waited < 3_000, `${waited} ms`)
    assert.equal(heard, 0, 'and was told nothing')
  })

  it('drops one that stops in the middle, or drips, at the same deadline', async () => {
    const network = await start({ swarmKey: key, clock: hastyClock })
    const socket = connect(portOf(network), '127.0.0.1')
    const started = performance.now()
    const drip = setInterval(() => { socket.write('/shoal/swarm/1\n\n'.charAt(0)) }, 20)
    socket.write('/shoal/swarm/1\n')
    await closed(socket)
    clearInterval(drip)
    assert.ok(performance.now() - started < 3_000)
  })

  it('drops garbage and floods at once', async () => {
    const network = await start({ swarmKey: key })
    for (const bytes of [Buffer.alloc(64, 'x'), Buffer.alloc(1024 * 1024, 'x'), Buffer.from('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n'), Buffer.concat([Buffer.from('/shoal/swarm/1\n\n'), Buffer.alloc(64)])]) {
      const socket = connect(portOf(network), '127.0.0.1')
        socket.resume()
      const started = performance.now()
      socket.write(bytes)
      await closed(socket)
      assert.ok(performance.now() - started < 2_000)
    }
    assert.equal(network.getConnections().length, 0)
  })

  it('does not let a recorded dialler in', async () => {
    const network = await start({ swarmKey: key })
    const dialler = await start({ swarmKey: key })
    // A server in the middle records what a true dialler sends, and sends the same again to the true listener.
    const recorded: Uint8Array[] = []
    const server = createServer(client => {
      const upstream = connect(portOf(network), '127.0.0.1')
      client.on('data', data => { recorded.push(Buffer.from(data)); upstream.write(data) })
      upstream.on('data', data => { client.write(data) })
      for (const [from, to] of [[client, upstream], [upstream, client]] as const) {
        from.on('error', () => { to.destroy() })
        from.on('close', () => { to.destroy() })
      }
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as { port: number }
    const connection = await dialler.dial(multiaddr(`/ip4/127.0.0.1/tcp/${port}`))
    assert.equal(connection.remotePeer.toString(), network.peerId.toString())
    await connection.close()
    const replay = connect(portOf(network), '127.0.0.1')
    replay.resume()
    const started = performance.now()
    replay.write(Buffer.concat(recorded))
    await closed(replay)
    assert.ok(performance.now() - started < 2_000)
    server.close()
  })
})

/** However it ends: mostly by a reset. */
async function closed (socket: Socket): Promise<void> {
  await new Promise<void>(resolve => {
    socket.on('error', () => undefined)
    socket.on('close', () => { resolve() })
  })
}
