/**
 * The floor: the plainest program that moves a file between two processes over TLS 1.3, checks its 4 MiB blocks with
 * BLAKE3 before they are written, and has it synced at the end. One thread of JavaScript each side, one connection for
 * each seeder, which sends an equal run of blocks; nothing else: no requests, no scheduling, no catalog. Driven over the
 * IPC channel:
 *
 *     floor-process.ts seed KEY CERTIFICATE FILE    -> {port, size, digests}
 *     floor-process.ts load CERTIFICATE             <- {ports, size, digests, path}  -> {} or {error}
 *
 * Tried with 2 GiB, three runs each: 1 slot 0.66 GiB/s, 2 slots 0.90, 3 slots 1.02; buffered instead of direct writes
 * 0.37 and twice the CPU. Size and number of slices, hashing steps and twelve slots made no difference beyond noise.
 */
import { closeSync, constants, fdatasync, fstatSync, ftruncateSync, openSync, readFileSync, readSync, write, writeSync } from 'node:fs'
import type { OnReadOpts } from 'node:net'
import { connect, createServer, type ConnectionOptions, type TLSSocket } from 'node:tls'
import { Blake3Hasher } from '@napi-rs/blake-hash'
import { KiB, MiB, PAGE_BYTES, asError } from '../../src/base/index.ts'

const CIPHER = 'TLS_AES_128_GCM_SHA256'
const BLOCK_BYTES = 4 * MiB
const SLICE_BYTES = 256 * KiB
const SLICES = 4
const SLOTS = Number(process.env.FLOOR_SLOTS ?? 6)
const HASH_BYTES = 256 * KiB
/** More than a TLS record, 16 KiB, which is what comes at once. */
const RECEIVE_BYTES = 64 * KiB

interface Offer { port: number, size: number, digests: string[] }
interface Task { ports: number[], size: number, digests: string[], path: string }
/** Blocks that one seeder sends: [first, end). */
interface Run { first: number, end: number }

function seed (key: string, certificate: string, file: string): void {
  const descriptor = openSync(file, 'r')
  const { size } = fstatSync(descriptor)
  const block = Buffer.alloc(BLOCK_BYTES)
  const digests: string[] = []
  for (let at = 0; at < size; at += BLOCK_BYTES) {
    const hasher = new Blake3Hasher()
    hasher.update(block.subarray(0, readSync(descriptor, block, 0, BLOCK_BYTES, at)))
    digests.push(hasher.digestBuffer().toString('hex'))
  }
  const server = createServer({ key: readFileSync(key), cert: readFileSync(certificate), minVersion: 'TLSv1.3', ciphers: CIPHER }, socket => {
    socket.on('error', () => { socket.destroy() })
    socket.once('data', asked => {
      const [from = 0, to = 0] = asked.toString().split('-').map(Number)
      pour(socket, descriptor, from, Math.min(size, to))
    })
  })
  server.listen(0, '127.0.0.1', () => {
    const address = server.address()
    if (address !== null && typeof address === 'object') process.send?.({ port: address.port, size, digests } satisfies Offer)
  })
}

/** Sends these bytes of the file from a few buffers; one is filled again when the socket has taken it. */
function pour (socket: TLSSocket, descriptor: number, from: number, to: number): void {
  socket.setNoDelay(true)
  let at = from
  const send = (slice: Buffer): void => {
    const length = Math.min(SLICE_BYTES, to - at)
    if (length === 0) return
    const count = readSync(descriptor, slice, 0, length, at)
    if (count !== length) throw new Error(`read ${count} of ${length} bytes at ${at}`)
    at += length
    socket.write(slice.subarray(0, length), error => { if (error === null || error === undefined) send(slice) })
  }
  for (let i = 0; i < SLICES; i++) send(Buffer.allocUnsafeSlow(SLICE_BYTES))
}

/** Blocks as they arrive, one after the other: into a slot, hashed on the way, written when right. */
class Receiver {
  readonly #task: Task
  readonly #run: Run
  readonly #free: Buffer[]
  readonly #hasher = new Blake3Hasher()
  readonly #file: number
  readonly #direct: number
  readonly #end: (error?: Error) => void
  #slot: Buffer | undefined
  #block: number
  #filled = 0
  #hashed = 0
  #writing = 0
  /** What came decrypted while there was no slot. */
  #rest = Buffer.alloc(0)
  /** Where TLS puts that. */
  readonly #spare = Buffer.allocUnsafeSlow(RECEIVE_BYTES)

  constructor (task: Task, run: Run, slots: Buffer[], end: (error?: Error) => void) {
    this.#task = task
    this.#run = run
    this.#block = run.first
    this.#free = slots
    this.#slot = slots.pop()
    this.#end = end
    this.#file = openSync(task.path, constants.O_WRONLY)
    this.#direct = openSync(task.path, constants.O_WRONLY | constants.O_DIRECT)
  }

  get #length (): number { return Math.min(BLOCK_BYTES, this.#task.size - this.#block * BLOCK_BYTES) }

  /** Where the next bytes go. */
  buffer (): Buffer {
    return this.#slot === undefined ? this.#spare : this.#slot.subarray(this.#filled, Math.min(BLOCK_BYTES, this.#filled + RECEIVE_BYTES))
  }

  /** False: no room, read no more. Bytes that are decrypted already come all the same, and the buffer asked for then is used once after. */
  take (count: number, buffer: Uint8Array): boolean {
    if (this.#slot === undefined || buffer.buffer === this.#spare.buffer) this.#copy(buffer.subarray(0, count))
    else this.#advance(count)
    return this.#slot !== undefined
  }

  #copy (bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length;) {
      if (this.#slot === undefined) { this.#rest = Buffer.concat([this.#rest, bytes.subarray(at)]); return }
      const count = Math.min(bytes.length - at, this.#length - this.#filled)
      this.#slot.set(bytes.subarray(at, at + count), this.#filled)
      at += count
      this.#advance(count)
    }
  }

  #advance (count: number): void {
    const slot = this.#slot
    if (slot === undefined) return
    this.#filled += count
    const length = this.#length
    if (this.#filled - this.#hashed >= HASH_BYTES || this.#filled === length) {
      this.#hasher.update(slot.subarray(this.#hashed, this.#filled))
      this.#hashed = this.#filled
    }
    if (this.#filled < length) return
    const digest = this.#hasher.digestBuffer().toString('hex')
    this.#hasher.reset()
    if (digest !== this.#task.digests[this.#block]) { this.#end(new Error(`block ${this.#block} is wrong`)); return }
    this.#write(slot, length)
    this.#block++
    this.#filled = this.#hashed = 0
    this.#slot = this.#free.pop()
  }

  #write (slot: Buffer, length: number): void {
    const offset = this.#block * BLOCK_BYTES
    const aligned = length - length % PAGE_BYTES
    if (aligned < length) writeSync(this.#file, slot, aligned, length - aligned, offset + aligned)
    this.#writing++
    const written = (error: Error | null, count: number): void => {
      if (error !== null || count !== aligned) { this.#end(error ?? new Error(`wrote ${count} of ${aligned} bytes`)); return }
      this.#writing--
      this.#free.push(slot)
      if (this.#slot === undefined) this.#goOn()
      this.#finish()
    }
    if (aligned === 0) queueMicrotask(() => { written(null, 0) })
    else write(this.#direct, slot, 0, aligned, offset, written)
  }

  resume: () => void = () => undefined

  #goOn (): void {
    this.#slot = this.#free.pop()
    const rest = this.#rest
    this.#rest = Buffer.alloc(0)
    this.#copy(rest)
    if (this.#slot !== undefined) this.resume()
  }

  #finish (): void {
    if (this.#writing > 0 || this.#block < this.#run.end) return
    fdatasync(this.#file, error => {
      closeSync(this.#direct)
      closeSync(this.#file)
      this.#end(error ?? undefined)
    })
  }
}

async function load (task: Task, certificate: string): Promise<void> {
  const file = openSync(task.path, 'w')
  ftruncateSync(file, task.size)
  closeSync(file)
  const blocks = Math.ceil(task.size / BLOCK_BYTES)
  const each = Math.ceil(blocks / task.ports.length)
  const ca = readFileSync(certificate)
  await Promise.all(task.ports.map(async (port, i) => { await receive(task, { first: Math.min(blocks, i * each), end: Math.min(blocks, (i + 1) * each) }, { port, ca }) }))
}

async function receive (task: Task, run: Run, { port, ca }: { port: number, ca: Buffer }): Promise<void> {
  if (run.first === run.end) return
  const pages = SLOTS * BLOCK_BYTES / (64 * KiB)
  const memory = new WebAssembly.Memory({ initial: pages, maximum: pages })
  const slots = Array.from({ length: SLOTS }, (_, i) => Buffer.from(memory.buffer as ArrayBuffer, i * BLOCK_BYTES, BLOCK_BYTES))
  await new Promise<void>((resolve, reject) => {
    const receiver = new Receiver(task, run, slots, error => {
      socket.destroy()
      if (error === undefined) resolve()
      else reject(error)
    })
    // Node passes onread on to the socket; its types know of it only without TLS.
    const options: ConnectionOptions & { onread: OnReadOpts } = {
      host: '127.0.0.1',
      port,
      servername: 'localhost',
      ca,
      minVersion: 'TLSv1.3',
      ciphers: CIPHER,
      onread: { buffer: () => receiver.buffer(), callback: (count, buffer) => receiver.take(count, buffer) }
    }
    const socket = connect(options, () => { socket.write(`${run.first * BLOCK_BYTES}-${run.end * BLOCK_BYTES}`) })
    receiver.resume = () => { socket.resume() }
    socket.on('error', reject)
    socket.on('close', () => { reject(new Error('the connection ended')) })
  })
}

const [role, ...args] = process.argv.slice(2)
if (role === 'seed') {
  const [key = '', certificate = '', file = ''] = args
  seed(key, certificate, file)
} else {
  process.on('message', (task: Task) => {
    load(task, args[0] ?? '').then(() => process.send?.({}), (error: unknown) => process.send?.({ error: asError(error).message }))
  })
  process.send?.('ready')
}
process.on('disconnect', () => { process.exit() })
