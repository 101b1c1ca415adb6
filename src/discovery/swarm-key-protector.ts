import { createCipheriv, createDecipheriv, createHmac, hkdfSync, timingSafeEqual, type Cipheriv, type Decipheriv } from 'node:crypto'
import type { ConnectionProtector, MessageStream } from '@libp2p/interface'
import type { SendResult } from '@libp2p/utils'
import {
  PeerGoneError, PeerTimeoutError, SWARM_HANDSHAKE_BYTES_MAX, SWARM_HANDSHAKE_MS, SwarmKeyError, abortReason, type Clock, type Random
} from '../base/index.ts'
import { RelayedStream, type Bytes, type Chunk } from './relayed-stream.ts'

/*
 * Who may speak: a private swarm's first exchange, before libp2p's own. docs/PROTOCOL.md has it in full.
 *
 *   dialler   -> listener   MAGIC, 32 random bytes
 *   listener  -> dialler    MAGIC, 32 random bytes, HMAC(confirm key, "listener")
 *   dialler   -> listener   HMAC(confirm key, "dialler"), and from here on everything is AES-256-CTR
 *
 * Confirm key, cipher keys and counters come from HKDF-SHA-256 over the swarm key, salted with both random values, so
 * no two connections and no two directions share any. Each side knows at once that the other has another key. Noise
 * runs on top and authenticates the peers and every byte: this layer alone protects neither against changed bytes nor
 * against one member of the swarm playing another.
 */
const MAGIC = Buffer.from('/shoal/swarm/1\n\n', 'latin1')
const NONCE_BYTES = 32
const CONFIRM_BYTES = 32

export interface SwarmKeyProtectorInit {
  key: Uint8Array
  clock: Clock
  random: Random
  /** Default SWARM_HANDSHAKE_MS. */
  deadlineMs?: number
}

/**
 * For libp2p's `connectionProtector`. A peer with another key, or none, is refused with SwarmKeyError; one that says
 * nothing, with PeerTimeoutError at the deadline.
 */
export function swarmKeyProtector (init: SwarmKeyProtectorInit): ConnectionProtector {
  return {
    protect: async (connection, options) => {
      const deadline = new AbortController()
      const deadlineMs = init.deadlineMs ?? SWARM_HANDSHAKE_MS
      const cancel = init.clock.setTimeout(() => {
        deadline.abort(new PeerTimeoutError(`the peer did not finish the swarm key exchange within ${deadlineMs} ms`))
      }, deadlineMs)
      const reader = new Reader(connection, options?.signal === undefined ? deadline.signal : AbortSignal.any([deadline.signal, options.signal]))
      try {
        const keys = await exchange(connection, reader, init)
        return new SwarmKeyStream(connection, keys, reader.detach())
      } finally {
        reader.detach()
        cancel()
      }
    }
  }
}

interface Keys { confirm: Buffer, send: Cipheriv, receive: Decipheriv }

async function exchange (connection: MessageStream, reader: Reader, init: SwarmKeyProtectorInit): Promise<Keys> {
  const own = init.random.bytes(NONCE_BYTES)
  if (connection.direction === 'outbound') {
    connection.send(Buffer.concat([MAGIC, own]))
    await expectMagic(reader)
    const keys = deriveKeys(init.key, { dialler: own, listener: await reader.read(NONCE_BYTES), outbound: true })
    expectConfirm(keys, 'listener', await reader.read(CONFIRM_BYTES))
    connection.send(confirm(keys, 'dialler'))
    return keys
  }
  // The listener says nothing to those who do not ask for this protocol.
  await expectMagic(reader)
  const keys = deriveKeys(init.key, { dialler: await reader.read(NONCE_BYTES), listener: own, outbound: false })
  connection.send(Buffer.concat([MAGIC, own, confirm(keys, 'listener')]))
  expectConfirm(keys, 'dialler', await reader.read(CONFIRM_BYTES))
  return keys
}

async function expectMagic (reader: Reader): Promise<void> {
  if (!MAGIC.equals(await reader.read(MAGIC.length))) {
    throw new SwarmKeyError('the peer speaks without a swarm key: it is in an open swarm, or no Shoal node; both sides need the same swarm key')
  }
}

function confirm (keys: Keys, role: 'dialler' | 'listener'): Buffer {
  return createHmac('sha256', keys.confirm).update(role).digest()
}

function expectConfirm (keys: Keys, role: 'dialler' | 'listener', received: Uint8Array): void {
  if (!timingSafeEqual(confirm(keys, role), received)) {
    throw new SwarmKeyError('the peer has another swarm key; join with an invite of the swarm it is in')
  }
}

function deriveKeys (key: Uint8Array, { dialler, listener, outbound }: { dialler: Uint8Array, listener: Uint8Array, outbound: boolean }): Keys {
  const salt = Buffer.concat([dialler, listener])
  const derive = (info: string, length: number): Buffer => Buffer.from(hkdfSync('sha256', key, salt, `shoal swarm 1 ${info}`, length))
  const fromDialler = derive('from the dialler', 48)
  const fromListener = derive('from the listener', 48)
  const [out, back] = outbound ? [fromDialler, fromListener] : [fromListener, fromDialler]
  return {
    confirm: derive('confirm', 32),
    send: createCipheriv('aes-256-ctr', out.subarray(0, 32), out.subarray(32)),
    receive: createDecipheriv('aes-256-ctr', back.subarray(0, 32), back.subarray(32))
  }
}

/** Reads exact numbers of bytes from the connection while the exchange lasts; what came after them is given back by `detach`. */
class Reader {
  readonly #connection: MessageStream
  readonly #signal: AbortSignal
  #buffer = Buffer.alloc(0)
  #failure: Error | undefined
  #wake: (() => void) | undefined
  #attached = true

  constructor (connection: MessageStream, signal: AbortSignal) {
    this.#connection = connection
    this.#signal = signal
    connection.addEventListener('message', this.#onMessage)
    connection.addEventListener('close', this.#onClose)
    signal.addEventListener('abort', this.#onAbort)
    if (signal.aborted) this.#onAbort()
  }

  async read (length: number): Promise<Uint8Array> {
    while (this.#buffer.length < length) {
      if (this.#failure !== undefined) throw this.#failure
      await new Promise<void>(resolve => { this.#wake = resolve })
    }
    const bytes = this.#buffer.subarray(0, length)
    this.#buffer = this.#buffer.subarray(length)
    return bytes
  }

  detach (): Uint8Array {
    if (this.#attached) {
      this.#attached = false
      this.#connection.removeEventListener('message', this.#onMessage)
      this.#connection.removeEventListener('close', this.#onClose)
      this.#signal.removeEventListener('abort', this.#onAbort)
    }
    return this.#buffer
  }

  readonly #onMessage = (event: { data: Chunk }): void => {
    this.#buffer = Buffer.concat([this.#buffer, event.data.subarray()])
    if (this.#buffer.length > SWARM_HANDSHAKE_BYTES_MAX) this.#fail(new SwarmKeyError('the peer sent far more than a swarm key exchange has; it is no Shoal node'))
    this.#wake?.()
  }

  readonly #onClose = (): void => {
    this.#fail(new PeerGoneError('the peer closed the connection during the swarm key exchange: it is in an open swarm, has no room for more peers, or is stopping'))
  }

  readonly #onAbort = (): void => { this.#fail(abortReason(this.#signal)) }

  #fail (error: Error): void {
    this.#failure ??= error
    this.#wake?.()
  }
}

/** Enciphers what is sent and deciphers what arrives: one cipher object a direction, one allocation a chunk. */
class SwarmKeyStream extends RelayedStream {
  readonly #keys: Keys

  constructor (inner: MessageStream, keys: Keys, early: Uint8Array) {
    super(inner)
    this.#keys = keys
    if (early.length > 0) this.push(keys.receive.update(early))
    inner.addEventListener('message', event => { this.#receive(event.data) })
    inner.addEventListener('drain', () => { this.safeDispatchEvent('drain') })
  }

  override sendData (data: Bytes): SendResult {
    const sentBytes = data.byteLength
    // A frame comes in five pieces (Noise's length, Yamux's head, our head, payload, tag): joined they make one system call.
    return { sentBytes, canSendMore: this.inner.send(this.#keys.send.update(data.subarray())) }
  }

  #receive (data: Chunk): void {
    if (data instanceof Uint8Array) {
      this.onData(this.#keys.receive.update(data))
      return
    }
    for (const chunk of data) this.onData(this.#keys.receive.update(chunk))
  }
}
