import assert from 'node:assert/strict'
import { X509Certificate, createPrivateKey } from 'node:crypto'
import { LANE_SEND_BUFFERS_MAX, LANE_TICKETS_MAX, LANE_TICKETS_PER_PEER_MAX, LANE_TICKET_MS, seededRandom, type Clock } from '../../../src/base/index.ts'
import { BufferPool, SEND_BUFFER_BYTES } from '../../../src/transfer/lanes/buffer-pool.ts'
import { createLaneCertificate, fingerprintOf } from '../../../src/transfer/lanes/certificate.ts'
import { ASK, FINGERPRINT_BYTES, LANE, decodeAsk, decodeLane, encodeAsk, encodeLane, laneClientRules, laneServerRules } from '../../../src/transfer/lanes/messages.ts'
import { Tickets, serverName, type Ticket } from '../../../src/transfer/lanes/tickets.ts'
import { FRAME_HEAD_BYTES, encodeControl } from '../../../src/transfer/wire.ts'

function clockAt (): { clock: Clock, advance: (ms: number) => void } {
  let time = 1_000
  return { clock: { now: () => time, monotonic: () => time, setTimeout: () => () => undefined }, advance: ms => { time += ms } }
}

const fingerprint = new Uint8Array(FINGERPRINT_BYTES).fill(3)

describe('lane tickets', () => {
  function tickets (): { tickets: Tickets, advance: (ms: number) => void } {
    const { clock, advance } = clockAt()
    return { tickets: new Tickets(clock, seededRandom(1)), advance }
  }
  const nameOf = ({ name }: Ticket): string => serverName(name)

  it('are claimed once, and taken once after that', () => {
    const { tickets: all } = tickets()
    const ticket = all.issue('peer', fingerprint)
    assert.equal(all.take(nameOf(ticket)), undefined, 'taken before it was claimed')
    assert.equal(all.claim(nameOf(ticket)), true)
    assert.equal(all.claim(nameOf(ticket)), false)
    assert.equal(all.take(nameOf(ticket))?.peerId, 'peer')
    assert.equal(all.take(nameOf(ticket)), undefined)
    assert.equal(all.claim(nameOf(ticket)), false)
    assert.equal(all.size, 0)
  })

  it('end with their time, claimed or not', () => {
    const { tickets: all, advance } = tickets()
    const [claimed, other] = [all.issue('peer', fingerprint), all.issue('peer', fingerprint)]
    advance(LANE_TICKET_MS - 1)
    assert.equal(all.claim(nameOf(claimed)), true)
    advance(1)
    assert.equal(all.take(nameOf(claimed)), undefined)
    assert.equal(all.claim(nameOf(other)), false)
    assert.equal(all.size, 0)
  })

  it('of one peer are few, its oldest go, and those of others stay', () => {
    const { tickets: all } = tickets()
    const other = all.issue('other', fingerprint)
    const own = Array.from({ length: 100 }, () => all.issue('peer', fingerprint))
    assert.equal(all.size, LANE_TICKETS_PER_PEER_MAX + 1)
    assert.deepEqual(own.map(ticket => all.claim(nameOf(ticket))), own.map((_ticket, i) => i >= own.length - LANE_TICKETS_PER_PEER_MAX))
    assert.equal(all.claim(nameOf(other)), true)
  })

  it('are bounded over all peers', () => {
    const { tickets: all } = tickets()
    for (let i = 0; i < 2 * LANE_TICKETS_MAX; i++) all.issue(`peer ${i}`, fingerprint)
    assert.equal(all.size, LANE_TICKETS_MAX)
  })

  it('of a peer are forgotten with it', () => {
    const { tickets: all } = tickets()
    const [own, other] = [all.issue('peer', fingerprint), all.issue('other', fingerprint)]
    all.forget('peer')
    assert.equal(all.claim(nameOf(own)), false)
    assert.equal(all.claim(nameOf(other)), true)
  })

  it('have names that fit a TLS server name, and no two the same secret or name', () => {
    const { tickets: all } = tickets()
    const made = Array.from({ length: 200 }, (_, i) => all.issue(`peer ${i}`, fingerprint))
    for (const ticket of made) assert.match(nameOf(ticket), /^[0-9a-f]{32}$/)
    assert.equal(new Set(made.map(nameOf)).size, made.length)
    assert.equal(new Set(made.map(({ secret }) => Buffer.from(secret).toString('hex'))).size, made.length)
  })
})

describe('lane certificates', () => {
  it('are what OpenSSL takes for one, signed with their own key, and never the same', () => {
    const [one, other] = [createLaneCertificate(), createLaneCertificate()]
    const parsed = new X509Certificate(one.cert)
    assert.equal(parsed.verify(parsed.publicKey), true)
    assert.equal(parsed.checkPrivateKey(createPrivateKey(one.key)), true)
    assert.deepEqual(Buffer.from(fingerprintOf(parsed.raw)), Buffer.from(one.fingerprint))
    assert.equal(one.fingerprint.length, FINGERPRINT_BYTES)
    assert(new Date(parsed.validFrom).getTime() < Date.UTC(2021, 0) && new Date(parsed.validTo).getTime() > Date.UTC(9999, 0))
    assert.notDeepEqual(one.fingerprint, other.fingerprint)
    assert.notEqual(parsed.serialNumber, new X509Certificate(other.cert).serialNumber)
  })

  it('are good DER whatever the length of the signature', () => {
    for (let i = 0; i < 50; i++) assert.doesNotThrow(() => new X509Certificate(createLaneCertificate().cert))
  })
})

describe('lane messages', () => {
  const offer = { port: 4_109, fingerprint, name: new Uint8Array(16).fill(1), secret: new Uint8Array(32).fill(2), ttlMs: LANE_TICKET_MS }
  const body = (frame: Uint8Array): Uint8Array => frame.subarray(FRAME_HEAD_BYTES)

  it('come out as they went in, as copies', () => {
    const lane = body(encodeLane(offer))
    const read = decodeLane(lane)
    lane.fill(0)
    assert.deepEqual(read, offer)
    assert.deepEqual(decodeAsk(body(encodeAsk(fingerprint))), fingerprint)
  })

  for (const [what, change] of [
    ['port 0', { port: 0 }], ['a port beyond 65535', { port: 65_536 }], ['half a port', { port: 1.5 }], ['a port that is text', { port: '80' }],
    ['a short fingerprint', { fingerprint: fingerprint.subarray(1) }], ['a long name', { name: new Uint8Array(17) }], ['a secret that is text', { secret: 'secret' }],
    ['no time', { ttlMs: 0 }], ['a time of a day', { ttlMs: 86_400_000 }], ['a key too many', { more: 1 }]
  ] as const) {
    it(`an offer with ${what} is none`, () => {
      assert.throws(() => decodeLane(body(encodeControl(LANE, { ...offer, ...change }))), { name: 'ProtocolError' })
    })
  }

  it('a question with something else than a fingerprint is none', () => {
    for (const value of [{}, { fingerprint: 'a' }, { fingerprint: new Uint8Array(31) }, { fingerprint, more: 1 }, [fingerprint], 7]) {
      assert.throws(() => decodeAsk(body(encodeControl(ASK, value))), { name: 'ProtocolError' })
    }
  })

  it('are the only ones that have a place, and short', () => {
    for (let type = 0; type < 256; type++) {
      assert.equal(laneServerRules.bodyBytesMax(type) !== undefined, type === ASK)
      assert((laneServerRules.bodyBytesMax(type) ?? 0) <= 512 && (laneClientRules.bodyBytesMax(type) ?? 0) <= 512)
    }
  })
})

describe('lane send buffers', () => {
  it('are used again, kept in a bounded number, and never given out twice', () => {
    const pool = new BufferPool()
    const out = Array.from({ length: 4 * LANE_SEND_BUFFERS_MAX }, () => pool.take(SEND_BUFFER_BYTES))
    assert.equal(new Set(out.map(({ buffer }) => buffer)).size, out.length)
    for (const buffer of out) pool.give(buffer)
    assert.equal(pool.free, LANE_SEND_BUFFERS_MAX)
    const again = Array.from({ length: 2 * LANE_SEND_BUFFERS_MAX }, () => pool.take(SEND_BUFFER_BYTES - 1))
    assert.equal(new Set(again.map(({ buffer }) => buffer)).size, again.length)
    assert.equal(again.filter(({ buffer }) => out.some(old => old.buffer === buffer)).length, LANE_SEND_BUFFERS_MAX)
  })

  it('have the length that was asked for, and what is no pool buffer is not kept', () => {
    const pool = new BufferPool()
    for (const bytes of [1, 8_192, 8_193, 100_000, SEND_BUFFER_BYTES, SEND_BUFFER_BYTES + 1]) assert.equal(pool.take(bytes).length, bytes)
    for (const bytes of [1, 8_192, SEND_BUFFER_BYTES - 1, SEND_BUFFER_BYTES + 1]) pool.give(new Uint8Array(bytes))
    assert.equal(pool.free, 0)
  })
})
