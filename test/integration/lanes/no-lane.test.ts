import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { connect as connectPlain, type Socket } from 'node:net'
import { MiB } from '../../../src/base/index.ts'
import { encodeWelcome, type LaneOffer } from '../../../src/transfer/lanes/messages.ts'
import { createLaneCertificate } from '../../../src/transfer/lanes/certificate.ts'
import { encodeHead } from '../../../src/transfer/messages.ts'
import { seedOf } from '../../compliance/store-fixtures.ts'
import { Peers, connect, holdAll, startFetch, type TestPeer } from '../transfer/peers.ts'
import { assertHeld, modelOf, transportOf } from './cases.ts'
import { Listener, certificate, freePort, offerOf, offering } from './offers.ts'
import { until } from '../../support/until.ts'

const seed = seedOf()

describe(`lanes: a peer that offers one and has none (seed ${seed})`, function () {
  this.timeout(20_000)
  this.retries(2) // a second is a second only while the machine is not busy with something else

  let peers: Peers
  let loader: TestPeer

  before(async () => {
    peers = new Peers()
    loader = await peers.add({ transport: 'tcp', lane: true })
  })

  after(async () => { await peers[Symbol.asyncDispose]() })

  /** Loads from a peer whose lane is what `offer` says. Returns milliseconds from the question for a lane to the first byte. */
  async function loadPast (offer: () => LaneOffer): Promise<number> {
    const seeder = await peers.add({ transport: 'tcp' })
    let asked = 0
    await offering(seeder, () => {
      asked = performance.now()
      return offer()
    })
    const sample = modelOf(seed + 2 * peers.all.length, 2 * MiB)
    await holdAll(seeder.store, sample)
    await connect(loader, seeder)
    const fetch = await startFetch(loader, sample, [seeder])
    await until('a byte came', () => fetch.stats().fetchedBytes > 0, { withinMs: 5_000 })
    const firstMs = performance.now() - asked
    await fetch.done
    await assertHeld(loader, sample)
    assert.equal(transportOf(loader, seeder), 'stream')
    assert.equal(loader.exchange.isBanned(seeder.id), false)
    // It is remembered, and costs nothing the next time.
    const again = modelOf(seed + 2 * peers.all.length + 1, 1 * MiB)
    await holdAll(seeder.store, again)
    await (await startFetch(loader, again, [seeder])).done
    return firstMs
  }

  it('a port that refuses: its stream serves within a second', async () => {
    const port = await freePort()
    assert(await loadPast(() => offerOf(port)) < 1_000)
  })

  it('a port that answers no SYN: its stream serves within a second', async () => {
    // A process that listens and has stopped: its line is soon full, and the kernel drops what comes.
    const stopped = spawn(process.execPath, ['-e', "require('net').createServer().listen({ port: 0, host: '127.0.0.1', backlog: 1 }, function () { console.log(this.address().port) })"], { stdio: ['ignore', 'pipe', 'inherit'] })
    const [said] = await once(stopped.stdout, 'data') as [Buffer]
    const port = Number(said.toString())
    stopped.kill('SIGSTOP')
    const line: Socket[] = []
    try {
      let waiting = false
      while (!waiting) {
        assert(line.length < 50, 'the line is never full')
        const socket = connectPlain({ host: '127.0.0.1', port })
        socket.on('error', () => undefined)
        line.push(socket)
        waiting = await new Promise(resolve => {
          const late = setTimeout(() => { resolve(true) }, 200)
          socket.once('connect', () => { clearTimeout(late); resolve(false) })
        })
      }
      assert(await loadPast(() => offerOf(port)) < 1_000)
    } finally {
      for (const socket of line) socket.destroy()
      stopped.kill('SIGKILL')
    }
  })

  const welcome = Buffer.from(encodeWelcome())
  const other = createLaneCertificate()
  for (const [what, listen] of [
    ['that takes connections and says nothing', async () => await Listener.plain(() => undefined)],
    ['that ends connections at once', async () => await Listener.plain(socket => { socket.destroy() })],
    ['that says something else than TLS', async () => await Listener.plain(socket => { socket.write('220 mail.example ESMTP\r\n') })],
    ['with another certificate than promised (a proxy that ends TLS, or a server that was restarted)', async () => await Listener.tls(other, socket => { socket.resume().write(welcome) })],
    ['that answers a ticket with rubbish', async () => await Listener.tls(certificate, socket => { socket.resume().write(Buffer.alloc(100_000, 1)) })],
    ['that answers a ticket by hanging up', async () => await Listener.tls(certificate, socket => { socket.once('data', () => { socket.destroy() }) })],
    ['that takes a ticket and says nothing', async () => await Listener.tls(certificate, socket => { socket.resume() })]
  ] as const) {
    it(`a port ${what}: its stream serves within a second`, async () => {
      await using listener = await listen()
      const firstMs = await loadPast(() => offerOf(listener.port))
      assert(firstMs < 1_000, `the first byte came after ${firstMs} ms`)
      await until('no socket is left', () => listener.sockets.size === 0, { withinMs: 5_000 })
    })
  }

  it('a lane that is welcome and then speaks out of turn is the end of the lane, not of the load', async () => {
    const liar = await peers.add({ transport: 'tcp' })
    const honest = await peers.add({ transport: 'tcp', lane: true })
    await using listener = await Listener.tls(certificate, socket => { socket.once('data', () => { socket.write(Buffer.concat([welcome, encodeHead(1, 5)])) }) })
    await offering(liar, () => offerOf(listener.port))
    const sample = modelOf(seed + 1_000, 4 * MiB)
    for (const peer of [liar, honest]) {
      await holdAll(peer.store, sample)
      await connect(loader, peer)
    }
    await (await startFetch(loader, sample, [liar, honest])).done
    await assertHeld(loader, sample)
  })
})
