import assert from 'node:assert/strict'
import { connect as connectPlain, type Socket } from 'node:net'
import { Worker } from 'node:worker_threads'
import {
  LANES_PENDING_MAX, LANE_HANDSHAKE_MS, LANE_TICKETS_PER_PEER_MAX, LANE_TICKET_MS, MiB, silentLogger, systemClock, systemRandom, type Clock
} from '../../../src/base/index.ts'
import { BufferPool } from '../../../src/transfer/lanes/buffer-pool.ts'
import { createLaneCertificate } from '../../../src/transfer/lanes/certificate.ts'
import { LaneServer } from '../../../src/transfer/lanes/lane-server.ts'
import { LANE_PROTOCOL, encodeHello } from '../../../src/transfer/lanes/messages.ts'
import { blockServerRules } from '../../../src/transfer/messages.ts'
import { seedOf, type Sample } from '../../compliance/store-fixtures.ts'
import { Peers, connect, holdAll, startFetch, type TestPeer } from '../transfer/peers.ts'
import { connectionsAt, descriptors, modelOf, part, transportOf } from './cases.ts'
import { ask, certificate, knock, knockPlain } from './offers.ts'
import { until } from '../../support/until.ts'

const seed = seedOf()

describe('lanes: whoever comes to the port', function () {
  this.timeout(20_000)
  let server: LaneServer
  let admitted: string[]
  let skipMs: number
  const clock: Clock = { ...systemClock, monotonic: () => systemClock.monotonic() + skipMs }

  beforeEach(async () => {
    skipMs = 0
    admitted = []
    server = new LaneServer({ clock, random: systemRandom, logger: silentLogger, certificate: createLaneCertificate(), shared: { pool: new BufferPool(), clock, limiter: undefined } }, { hosts: ['127.0.0.1'], port: 0 }, (peerId, open) => {
      admitted.push(peerId)
      open(blockServerRules, { frame: () => undefined, data: () => undefined, drained: () => undefined, closed: () => undefined })
      return true
    })
    await server.start()
  })

  afterEach(async () => {
    await server.stop()
    await until('nothing is left', () => server.pending === 0 && server.lanes === 0, { withinMs: 100 })
  })

  function offerTo (peerId: string, fingerprint = certificate.fingerprint): NonNullable<ReturnType<LaneServer['offer']>> {
    const offer = server.offer(peerId, fingerprint)
    assert(offer !== undefined)
    return offer
  }

  it('with the ticket, the certificate and the secret: is let in, as the peer that asked, once', async () => {
    const offer = offerTo('peer')
    const first = await knock(offer)
    assert.equal(first.welcome, true)
    assert.deepEqual(admitted, ['peer'])
    assert.equal(server.lanes, 1)
    assert.equal(server.pending, 0)
    assert.equal((await knock(offer)).welcome, false, 'a ticket was good twice')
    first.socket.destroy()
    await until('the lane is gone', () => server.lanes === 0, { withinMs: 5_000 })
  })

  it('two with the same ticket at the same time: one of them', async () => {
    const offer = offerTo('peer')
    const both = await Promise.all([knock(offer), knock(offer)])
    assert.equal(both.filter(({ welcome }) => welcome).length, 1)
    for (const { socket } of both) socket.destroy()
  })

  const thief = createLaneCertificate()
  const cases: Record<string, () => Promise<{ welcome: boolean, closed: boolean }>> = {
    'a ticket with a certificate that it was not made out for': async () => await knock(offerTo('peer'), { shows: thief }),
    'a ticket and no certificate': async () => await knock(offerTo('peer'), { tls: { key: undefined, cert: undefined } }),
    'a name that is none': async () => await knock({ ...offerTo('peer'), name: Buffer.alloc(16, 1) }),
    'no name at all': async () => await knock(offerTo('peer'), { tls: { servername: '' } }),
    "a ticket's name and another secret": async () => { const offer = offerTo('peer'); return await knock(offer, { says: encodeHello(Buffer.alloc(32, 1)) }) },
    'another one\'s secret': async () => { const [own, other] = [offerTo('peer'), offerTo('other')]; return await knock(own, { says: encodeHello(other.secret) }) },
    'the secret and a byte more': async () => { const offer = offerTo('peer'); return await knock(offer, { says: Buffer.concat([encodeHello(offer.secret), Buffer.alloc(1)]) }) },
    'a first frame of 8 MiB': async () => await knock(offerTo('peer'), { says: Buffer.alloc(8 * MiB, 3) }),
    'a ticket that has expired': async () => { const offer = offerTo('peer'); skipMs = LANE_TICKET_MS + 1; return await knock(offer) },
    'a ticket of a peer that has gone since': async () => { const offer = offerTo('peer'); server.drop('peer'); return await knock(offer) },
    'TLS 1.2': async () => await knock(offerTo('peer'), { tls: { minVersion: 'TLSv1.2', maxVersion: 'TLSv1.2' } }),
    'another protocol by ALPN': async () => await knock(offerTo('peer'), { tls: { ALPNProtocols: ['h2'] } }),
    'no ALPN': async () => await knock(offerTo('peer'), { tls: { ALPNProtocols: [] } }),
    'HTTP in plain text': async () => await knockPlain(server.port, Buffer.from('GET / HTTP/1.1\r\nHost: a\r\n\r\n')),
    'a lane without TLS': async () => { const offer = offerTo('peer'); return await knockPlain(server.port, encodeHello(offer.secret)) },
    'nothing but noise': async () => await knockPlain(server.port, systemRandom.bytes(100_000))
  }
  for (const [what, come] of Object.entries(cases)) {
    it(`with ${what}: is sent away, and nothing is opened`, async () => {
      const { welcome, closed } = await come()
      assert.equal(welcome, false)
      assert.equal(closed, true)
      assert.deepEqual(admitted, [])
      await until('nothing is left of it', () => server.pending === 0 && server.lanes === 0, { withinMs: LANE_HANDSHAKE_MS })
      skipMs = 0
      const after = await knock(offerTo('honest'))
      assert.equal(after.welcome, true, 'an honest peer is let in after it')
      after.socket.destroy()
    })
  }

  it('and says nothing, or a byte of a handshake at a time, or stops after the handshake: is sent away in time', async () => {
    const started = performance.now()
    const silent = connectPlain({ host: '127.0.0.1', port: server.port })
    const slow = connectPlain({ host: '127.0.0.1', port: server.port })
    const gone: Array<Promise<number>> = [silent, slow].map(async socket => {
      socket.on('error', () => undefined)
      return await new Promise(resolve => { socket.once('close', () => { resolve(performance.now() - started) }) })
    })
    // A record head of a ClientHello of 500 bytes, and then its zeros.
    const hello = Buffer.concat([Buffer.from([22, 3, 1, 1, 0xf4, 1, 0, 1, 0xf0, 3, 3]), Buffer.alloc(500)])
    let at = 0
    const drip = setInterval(() => { if (!slow.destroyed) slow.write(hello.subarray(at, ++at)) }, 100)
    const mute = knock(offerTo('peer'), { says: Buffer.alloc(0) })
    for (const ms of await Promise.all(gone)) assert(ms > LANE_HANDSHAKE_MS - 500 && ms < LANE_HANDSHAKE_MS + 1_500, `after ${ms} ms`)
    clearInterval(drip)
    assert.equal((await mute).welcome, false)
    assert(performance.now() - started < LANE_HANDSHAKE_MS + 1_500)
    assert.deepEqual(admitted, [])
    await until('nothing is left of them', () => server.pending === 0, { withinMs: 1_000 })
  })

  it('and the server stops: all of them are sent away at once', async () => {
    const open = await knock(offerTo('peer'))
    assert(open.welcome)
    const silent = Array.from({ length: 10 }, () => connectPlain({ host: '127.0.0.1', port: server.port }).on('error', () => undefined).resume())
    const mute = knock(offerTo('other'), { says: Buffer.alloc(0) })
    await until('they are there', () => server.pending === 11, { withinMs: 5_000 })
    const offer = offerTo('late')
    const started = performance.now()
    await server.stop()
    assert(performance.now() - started < 500)
    await until('they know', () => [open.socket, ...silent].every(({ destroyed }) => destroyed), { withinMs: 500 })
    assert.equal((await mute).welcome, false)
    assert.equal((await knock(offer)).welcome, false)
    assert.equal(server.offer('peer', certificate.fingerprint), undefined)
  })

  it('from the port of one that was reset, within the same turn: is known to wait, and is sent away like any other', async () => {
    const shared = new Int32Array(new SharedArrayBuffer(4))
    const stranger = new Worker(`
      const { connect } = require('node:net')
      const { workerData: { port, shared }, parentPort } = require('node:worker_threads')
      const come = (localPort, done) => { const socket = connect({ host: '127.0.0.1', port, localPort }, () => { done(socket) }) }
      come(undefined, first => {
        const { localPort } = first
        parentPort.once('message', () => {
          first.once('close', () => { come(localPort, () => { Atomics.store(shared, 0, 1); Atomics.notify(shared, 0) }) })
          first.resetAndDestroy()
        })
      })
    `, { eval: true, workerData: { port: server.port, shared } })
    try {
      await until('the first is there', () => server.pending === 1, { withinMs: 5_000 })
      stranger.postMessage('again')
      assert.notEqual(Atomics.wait(shared, 0, 0, 5_000), 'timed-out') // this side looks at nothing meanwhile
      await until('the reset is known', () => connectionsAt(server.port) === 1, { withinMs: 1_000 })
      for (let turn = 0; turn < 5; turn++) await new Promise(resolve => { setImmediate(resolve) })
      assert.equal(server.pending, 1)
      await server.stop()
      await until('it is sent away', () => connectionsAt(server.port) === 0, { withinMs: 1_000 })
    } finally {
      await stranger.terminate()
    }
  })

  it('a flood of them: few wait at a time, an open lane is not touched, and no descriptor is left', async () => {
    const open = await knock(offerTo('peer'))
    assert.equal(open.welcome, true)
    const before = descriptors()
    const sockets: Socket[] = []
    let most = 0
    for (let i = 0; i < 300; i++) {
      const socket = connectPlain({ host: '127.0.0.1', port: server.port })
      socket.on('error', () => undefined).resume()
      sockets.push(socket)
      if (i % 3 === 0) socket.once('connect', () => { socket.resetAndDestroy() }) // gone before it is looked at
      if (i % 20 === 0) await new Promise(resolve => { setImmediate(resolve) })
      most = Math.max(most, server.pending)
    }
    await until('those beyond the bound are sent away', () => sockets.filter(socket => !socket.destroyed).length <= LANES_PENDING_MAX, { withinMs: 5_000 })
    most = Math.max(most, server.pending)
    assert(most <= LANES_PENDING_MAX, `${most} waited`)
    assert.equal(open.socket.destroyed, false)
    assert.equal(server.lanes, 1)
    for (const socket of sockets) socket.destroy()
    await until('their descriptors are back', () => descriptors() <= before && server.pending === 0, { withinMs: 5_000 })
    open.socket.destroy()
  })
})

describe('lanes: whoever asks for one', function () {
  this.timeout(20_000)

  async function seeded (bytes = 1 * MiB): Promise<{ peers: Peers, seeder: TestPeer, sample: Sample }> {
    const peers = new Peers()
    const seeder = await peers.add({ transport: 'tcp', lane: true })
    const sample = modelOf(seed, bytes)
    await holdAll(seeder.store, sample)
    return { peers, seeder, sample }
  }

  it('often: only its newest few tickets are good, and others still get lanes', async () => {
    const { peers, seeder } = await seeded()
    await using _ = peers
    const flooder = await peers.addBare({ transport: 'tcp' })
    await connect(flooder, seeder)
    const offers = []
    for (let i = 0; i < 40; i++) offers.push(await ask(flooder, seeder.id))
    const welcome: boolean[] = []
    for (const offer of offers) {
      assert(offer !== undefined)
      const answer = await knock(offer)
      answer.socket.destroy()
      welcome.push(answer.welcome)
    }
    assert.deepEqual(welcome, offers.map((_offer, i) => i >= offers.length - LANE_TICKETS_PER_PEER_MAX))
    const honest = await peers.add({ transport: 'tcp', lane: true })
    await connect(honest, seeder)
    assert.notEqual(await ask(honest, seeder.id), undefined)
  })

  it('with a message that is none, or says nothing: its stream ends, the connection stays', async () => {
    const { peers, seeder } = await seeded()
    await using _ = peers
    const stranger = await peers.addBare({ transport: 'tcp' })
    await connect(stranger, seeder)
    for (const bytes of [Buffer.alloc(100_000, 255), Buffer.from([2, 0, 0, 0, 32, 0xff]), Buffer.from([1, 0, 0, 0, 99])]) {
      const stream = await stranger.network.dialProtocol(seeder.network.peerId, LANE_PROTOCOL)
      const ended = new Promise(resolve => { stream.addEventListener('close', resolve) })
      stream.send(bytes)
      await ended
    }
    assert.notEqual(await ask(stranger, seeder.id), undefined)
  })

  it('and is banned: gets none, and the one it has is closed', async () => {
    const { peers, seeder } = await seeded()
    await using _ = peers
    const stranger = await peers.addBare({ transport: 'tcp' })
    await connect(stranger, seeder)
    const offer = await ask(stranger, seeder.id)
    const spare = await ask(stranger, seeder.id)
    assert(offer !== undefined && spare !== undefined)
    const { welcome, socket } = await knock(offer)
    assert(welcome)
    const closed = new Promise(resolve => { socket.once('close', resolve) })
    socket.write(Buffer.from([1, 0, 0, 0, 99])) // breaks the protocol
    await closed
    assert.equal(seeder.exchange.isBanned(stranger.id), true)
    assert.equal((await knock(spare)).welcome, false, 'a ticket from before the ban was good')
    assert.equal(await ask(stranger, seeder.id).catch(() => undefined), undefined)
  })

  it('and hangs up: its lane ends with its connection, at both ends, and its tickets too', async () => {
    const { peers, seeder, sample } = await seeded(8 * MiB)
    await using _ = peers
    const before = descriptors()
    const loader = await peers.add({ transport: 'tcp', lane: true, settings: { downloadBytesPerSecond: 1 * MiB } })
    await connect(loader, seeder)
    const fetch = await startFetch(loader, sample, [seeder])
    fetch.done.catch(() => undefined)
    await until('bytes came', () => fetch.stats().fetchedBytes > 0, { withinMs: 5_000 })
    assert.equal(transportOf(loader, seeder), 'lane')
    assert.equal(transportOf(seeder, loader), 'lane')
    const left = new Promise<string>(resolve => { fetch.events.on('peer:left', ({ reason }) => { resolve(reason) }) })
    const offer = await ask(loader, seeder.id)
    for (const connection of loader.network.getConnections()) await connection.close()
    assert.match(await left, /closed|ended|gone|broke/)
    await fetch.stop()
    assert(offer !== undefined)
    await until('the seeder has seen it', () => seeder.network.getConnections().length === 0, { withinMs: 5_000 })
    assert.equal((await knock(offer)).welcome, false, 'a ticket outlived the connection that it came over')
    await peers.kill(loader)
    peers.all.splice(peers.all.indexOf(loader), 1)
    await part(seeder)
    await until('all descriptors are back', () => descriptors() <= before, { withinMs: 5_000 })
  })

  it('1,000 clients that connect and say nothing while a load runs: it ends over its lane, undisturbed', async () => {
    const { peers, seeder, sample } = await seeded(32 * MiB)
    await using _ = peers
    // Eight seconds: where cores are short a thousand connections take several.
    const loader = await peers.add({ transport: 'tcp', lane: true, settings: { downloadBytesPerSecond: 4 * MiB } })
    const stranger = await peers.addBare({ transport: 'tcp' })
    await connect(loader, seeder)
    await connect(stranger, seeder)
    const offer = await ask(stranger, seeder.id)
    assert(offer !== undefined)
    const fetch = await startFetch(loader, sample, [seeder])
    const left: string[] = []
    fetch.events.on('peer:left', ({ reason }) => { left.push(reason) })
    await until('bytes came', () => fetch.stats().fetchedBytes > 0, { withinMs: 5_000 })
    assert.equal(transportOf(loader, seeder), 'lane')
    assert.equal(connectionsAt(offer.port), 1)
    const sockets: Socket[] = []
    for (let i = 0; i < 1_000; i++) {
      const socket = connectPlain({ host: '127.0.0.1', port: offer.port })
      socket.on('error', () => undefined).resume()
      sockets.push(socket)
      if (i % 25 === 0) await new Promise(resolve => { setImmediate(resolve) })
    }
    await until('few of them wait', () => sockets.filter(({ destroyed }) => !destroyed).length <= LANES_PENDING_MAX, { withinMs: 5_000 })
    assert(connectionsAt(offer.port) <= LANES_PENDING_MAX + 1)
    const meanwhile = fetch.stats().bytesDone
    await fetch.done
    assert(meanwhile < sample.bytes, 'the load was over before the flood')
    assert.deepEqual(left, [])
    assert.equal(fetch.stats().duplicateBytes, 0)
    assert.equal(transportOf(loader, seeder), 'lane')
    for (const socket of sockets) socket.destroy()
    await until('nothing is left of them', () => connectionsAt(offer.port) <= 1, { withinMs: LANE_HANDSHAKE_MS + 2_000 })
  })
})

