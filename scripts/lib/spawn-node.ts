import { fork, type ChildProcess } from 'node:child_process'
import { join } from 'node:path'
import { ShoalError } from '../../src/base/index.ts'
import type { AddResult, DrainResult, LoadResult, NodeStatus, PeerStatus } from '../../src/node/types.ts'
import type { ShardStatus } from '../../src/replication/types.ts'
import type { VerifyResult } from '../../src/storage/store.ts'
import { at, bundle } from './bundle.ts'
import type { Command, Message, ProcessInit } from './node-process.ts'

type WithoutId<T> = T extends { id: number } ? Omit<T, 'id'> : never

/** A node in a child process. `kill()` is SIGKILL: nothing is closed, synced or said goodbye to. */
export class NodeProcess implements AsyncDisposable {
  static #program: Promise<string> | undefined
  readonly child: ChildProcess
  peerId = ''
  multiaddrs: string[] = []
  onProgress: (bytesDone: number, bytesTotal: number) => void = () => undefined
  readonly exited: Promise<void>
  readonly #waiting = new Map<number, { resolve: (result: unknown) => void, reject: (error: Error) => void }>()
  #next = 1

  private constructor (program: string, init: ProcessInit, prefix: readonly string[], flags: readonly string[]) {
    const [command, ...before] = [...prefix, process.execPath, ...flags]
    this.child = fork(program, [JSON.stringify(init)], {
      execPath: command,
      execArgv: before,
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      // Starting is mostly compiling; later processes find it done.
      env: { NODE_COMPILE_CACHE: at('dist/compile-cache'), ...process.env }
    })
    this.exited = new Promise(resolve => { this.child.once('exit', () => { resolve() }) })
    void this.exited.then(() => {
      for (const { reject } of this.#waiting.values()) reject(new Error('the node process ended'))
      this.#waiting.clear()
    })
  }

  /** Resolves when the node is up. Throws what createNode threw. `prefix`: a command that runs the command after it, `ip netns exec NAME`; `flags` are V8's. */
  static async start (init: ProcessInit, prefix: readonly string[] = [], flags: readonly string[] = []): Promise<NodeProcess> {
    const node = new NodeProcess(await (NodeProcess.#program ??= program()), init, prefix, flags)
    await new Promise<void>((resolve, reject) => {
      node.child.on('message', (message: Message) => {
        if ('id' in message) { node.#answer(message); return }
        if (message.event === 'progress') { node.onProgress(message.bytesDone, message.bytesTotal); return }
        if (message.event === 'failed') { reject(remade(message.error)); return }
        node.peerId = message.peerId
        node.multiaddrs = message.multiaddrs
        resolve()
      })
      void node.exited.then(() => { reject(new Error('the node process ended before it was ready')) })
    })
    return node
  }

  async add (path: string, inPlace = false, replicas?: number): Promise<AddResult> { return await this.#call({ call: 'add', path, inPlace, ...(replicas === undefined ? {} : { replicas }) }) as AddResult }
  async load (cid: string, include?: string[]): Promise<LoadResult> { return await this.#call({ call: 'load', cid, ...(include === undefined ? {} : { include }) }) as LoadResult }
  async remove (cid: string): Promise<void> { await this.#call({ call: 'remove', cid }) }
  async verify (): Promise<VerifyResult> { return await this.#call({ call: 'verify' }) as VerifyResult }
  async shards (cid: string): Promise<ShardStatus[]> { return await this.#call({ call: 'shards', cid }) as ShardStatus[] }
  async replicated (cid: string): Promise<void> { await this.#call({ call: 'replicated', cid }) }
  async drain (deadlineMs?: number): Promise<DrainResult> { return await this.#call({ call: 'drain', ...(deadlineMs === undefined ? {} : { deadlineMs }) }) as DrainResult }
  async pin (cid: string, replicas?: number): Promise<void> { await this.#call({ call: 'pin', cid, ...(replicas === undefined ? {} : { replicas }) }) }
  async unpin (cid: string): Promise<void> { await this.#call({ call: 'unpin', cid }) }
  async status (): Promise<NodeStatus> { return await this.#call({ call: 'status' }) as NodeStatus }
  async peers (): Promise<PeerStatus[]> { return await this.#call({ call: 'peers' }) as PeerStatus[] }
  async connect (address: string): Promise<void> { await this.#call({ call: 'connect', address }) }

  async stop (): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return
    await this.#call({ call: 'stop' }).catch(() => undefined) // it may end before it answers
    await this.exited
  }

  async kill (): Promise<void> {
    this.child.kill('SIGKILL')
    await this.exited
  }

  async [Symbol.asyncDispose] (): Promise<void> { await this.stop() }

  #call (command: WithoutId<Command>): Promise<unknown> {
    const id = this.#next++
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject })
      this.child.send({ ...command, id } as Command, error => {
        if (error === null) return
        this.#waiting.delete(id)
        reject(error)
      })
    })
  }

  #answer (message: Extract<Message, { id: number }>): void {
    const waiting = this.#waiting.get(message.id)
    this.#waiting.delete(message.id)
    if ('error' in message) waiting?.reject(remade(message.error))
    else waiting?.resolve(message.result)
  }
}

function remade (error: { name: string, message: string }): Error {
  return ShoalError.fromJSON({ ...error, kind: 'failed', retryable: false, fault: 'node' })
}

async function program (): Promise<string> {
  const directory = at('dist/bundle')
  await bundle({ 'node-process': at('scripts/lib/node-process.ts') }, directory)
  return join(directory, 'node-process.js')
}
