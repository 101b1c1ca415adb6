import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect as connectTls } from 'node:tls'
import type { Worker } from 'node:worker_threads'
import { MiB, silentLogger, systemClock, systemRandom } from '../../../src/base/index.ts'
import { BufferPool } from '../../../src/transfer/lanes/buffer-pool.ts'
import { createLaneCertificate } from '../../../src/transfer/lanes/certificate.ts'
import { LaneServer } from '../../../src/transfer/lanes/lane-server.ts'
import { LaneThreads, laneThreadsFor } from '../../../src/transfer/lanes/lane-threads.ts'
import { LANE_ALPN, encodeHello } from '../../../src/transfer/lanes/messages.ts'
import { serverName } from '../../../src/transfer/lanes/tickets.ts'
import { blockServerRules } from '../../../src/transfer/messages.ts'
import { seedOf } from '../../compliance/store-fixtures.ts'
import { Peers, connect, holdAll, startFetch } from '../transfer/peers.ts'
import { assertHeld, connectionsAt, loadSmall, loadWhileCut, modelOf, part, transportOf } from './cases.ts'
import { ask, certificate, knock, knockPlain } from './offers.ts'
import { until } from '../../support/until.ts'

const seed = seedOf()

/** Notes which server makes an offer: it alone knows whether its ticket was taken. */
class Issuer implements Disposable {
  readonly #offer = Reflect.get(LaneServer.prototype, 'offer')
  #server: LaneServer | undefined

  constructor () {
    const [offer, note] = [this.#offer, (server: LaneServer): void => { this.#server = server }]
    LaneServer.prototype.offer = function (...args) {
      note(this)
      return offer.apply(this, args)
    }
  }

  get tickets (): number | undefined { return this.#server?.tickets }

  [Symbol.dispose] (): void { LaneServer.prototype.offer = this.#offer }
}

describe(`lanes that threads keep (seed ${seed})`, function () {
  this.timeout(60_000)

  it('are none on a few cores, and a few on many', () => {
    assert.deepEqual([1, 2, 4, 8, 16, 64, 200].map(laneThreadsFor), [0, 0, 0, 1, 2, 8, 8])
  })

  describe('whoever comes to the port', () => {
    const own = createLaneCertificate()
    let threads: LaneThreads
    let server: LaneServer
    let admitted: string[]

    beforeEach(async () => {
      admitted = []
      threads = new LaneThreads(2, own, silentLogger)
      server = new LaneServer({ clock: systemClock, random: systemRandom, logger: silentLogger, certificate: own, shared: { pool: new BufferPool({ shared: true }), clock: systemClock, limiter: undefined }, threads }, { hosts: ['127.0.0.1'], port: 0 }, (peerId, open) => {
        admitted.push(peerId)
        open(blockServerRules, { frame: () => undefined, data: () => undefined, drained: () => undefined, closed: () => undefined })
        return peerId !== 'one too many'
      })
      await server.start()
    })

    afterEach(async () => {
      await server.stop()
      await threads.stop()
      assert.equal(server.lanes, 0)
      assert.equal(threads.running, 0)
    })

    const offerTo = (peerId: string, fingerprint = certificate.fingerprint): NonNullable<ReturnType<LaneServer['offer']>> => {
      const offer = server.offer(peerId, fingerprint)
      assert(offer !== undefined)
      return offer
    }

    it('is let in once with ticket, certificate and secret, whichever thread it comes to', async () => {
      for (let i = 0; i < 16; i++) {
        const offer = offerTo(`peer-${i}`)
        const first = await knock(offer)
        assert.equal(first.welcome, true)
        assert.equal((await knock(offer)).welcome, false, 'a ticket was good twice')
        first.socket.destroy()
      }
      assert.equal(admitted.length, 16)
      await until('the lanes are gone', () => server.lanes === 0 && threads.lanes === 0, { withinMs: 5_000 })
    })

    it('is sent away with another certificate, another secret, no ticket, no TLS, or when it is one too many', async () => {
      const other = createLaneCertificate()
      assert.equal((await knock(offerTo('a'), { shows: other })).welcome, false)
      assert.equal((await knock(offerTo('b'), { says: encodeHello(Buffer.alloc(32, 1)) })).welcome, false)
      assert.equal((await knock({ ...offerTo('c'), name: Buffer.alloc(16, 3) })).welcome, false)
      assert.equal((await knockPlain(server.port, Buffer.from('GET / HTTP/1.1\r\n\r\n'))).welcome, false)
      assert.deepEqual(admitted, [])
      const { socket } = await knock(offerTo('one too many'))
      await until('it is closed', () => socket.destroyed || socket.readableEnded || connectionsAt(server.port) === 0, { withinMs: 5_000 })
      assert.equal((await knock(offerTo('d'))).welcome, true)
    })

    it('ends when the peer is dropped, and with the threads', async () => {
      const dropped = await knock(offerTo('dropped'))
      const stays = await knock(offerTo('stays'))
      server.drop('dropped')
      await until('one lane is left', () => server.lanes === 1 && dropped.socket.destroyed, { withinMs: 5_000 })
      assert.equal(stays.socket.destroyed, false)
      await threads.stop()
      await until('none is left', () => stays.socket.destroyed, { withinMs: 5_000 })
      assert.equal(server.offer('late', certificate.fingerprint), undefined, 'nobody listens, and a lane was offered')
    })
  })

  it('share no port with those of another node', async () => {
    const own = createLaneCertificate()
    const all = [2, 2, 1].map(size => new LaneThreads(size, own, silentLogger))
    try {
      const servers: LaneServer[] = []
      for (const threads of all) {
        const server = new LaneServer({ clock: systemClock, random: systemRandom, logger: silentLogger, certificate: own, shared: { pool: new BufferPool(), clock: systemClock, limiter: undefined }, threads }, { hosts: ['127.0.0.1', '127.0.0.2'], port: servers[0]?.port ?? 0 }, () => false)
        servers.push(server)
        await server.start()
      }
      assert.equal(new Set(servers.map(({ port }) => port)).size, 3)
      assert(servers.every(({ port }) => port > 0))
    } finally {
      for (const threads of all) await threads.stop()
    }
  })

  for (const laneThreads of [undefined, 2]) {
    it(`let nobody in whose connection ended between ticket and secret (${laneThreads ?? 'no'} threads)`, async () => {
      await using peers = new Peers()
      using issuer = new Issuer()
      const [server, asker] = await peers.addMany(2, { transport: 'tcp', lane: true, laneThreads })
      assert(server !== undefined && asker !== undefined)
      await connect(asker, server)
      const offer = await ask(asker, server.id)
      assert(offer !== undefined)
      const socket = connectTls({ host: '127.0.0.1', port: offer.port, servername: serverName(offer.name), ALPNProtocols: [LANE_ALPN], key: certificate.key, cert: certificate.cert, rejectUnauthorized: false, minVersion: 'TLSv1.3' })
      socket.on('error', () => undefined)
      await once(socket, 'secureConnect')
      await until('the ticket is taken', () => issuer.tickets === 0, { withinMs: 10_000 })
      await part(asker, server)
      socket.write(encodeHello(offer.secret))
      socket.resume()
      await until('it is sent away', () => socket.destroyed, { withinMs: 2_000 })
    })
  }

  it('load what peers of all kinds hold, from threads and to threads, at a cap and without', async () => {
    await using peers = new Peers()
    const sample = modelOf(seed, 24 * MiB)
    const kinds = [undefined, 1, 2]
    const holders = await Promise.all(kinds.map(async laneThreads => await peers.add({ transport: 'tcp', lane: true, laneThreads })))
    for (const holder of holders) await holdAll(holder.store, sample)
    for (const laneThreads of kinds) {
      for (const capped of [false, true]) {
        const loader = await peers.add({ transport: 'tcp', lane: true, laneThreads, slots: 3, ...(capped ? { settings: { downloadBytesPerSecond: 48 * MiB } } : {}) })
        for (const holder of holders) await connect(loader, holder)
        const fetch = await startFetch(loader, sample, holders)
        await fetch.done
        await assertHeld(loader, sample)
        for (const holder of holders) assert.equal(transportOf(loader, holder), 'lane')
        await until('all slots are free', () => loader.store.slots.free === loader.store.slots.size, { withinMs: 5_000 })
      }
    }
  })

  it('cut at random bytes, 10 times: every load ends complete and right, and no descriptor is left', async () => {
    const { cuts, loads } = await loadWhileCut(seed, 10, 4, 2)
    assert(cuts >= 10 && loads >= 4)
  })

  it('forty loads one after the other leave nothing behind', async () => {
    await loadSmall(seed, 40, undefined, 2)
  })

  it('when all threads of the holder fail in the middle, the load ends over the stream', async () => {
    await using peers = new Peers()
    const sample = modelOf(seed, 48 * MiB, 1 * MiB)
    const workers: Worker[] = []
    const note = (worker: Worker): void => { workers.push(worker) }
    process.on('worker', note)
    const holder = await peers.add({ transport: 'tcp', lane: true, laneThreads: 2, settings: { uploadBytesPerSecond: 24 * MiB } })
    process.off('worker', note)
    const loader = await peers.add({ transport: 'tcp', lane: true })
    await holdAll(holder.store, sample)
    await connect(loader, holder)
    const fetch = await startFetch(loader, sample, [holder])
    fetch.events.on('starved', () => { fetch.addPeer(holder.id) }) // as a node does that looks for providers again
    await until('it has begun', () => fetch.stats().bytesDone > 4 * MiB, { withinMs: 5_000 })
    assert.equal(transportOf(loader, holder), 'lane')
    assert.equal(workers.length, 2)
    for (const worker of workers) await worker.terminate()
    await fetch.done
    await assertHeld(loader, sample)
    assert.equal(transportOf(loader, holder), 'stream')
    await part(loader, holder)
  })
})
