import assert from 'node:assert/strict'
import { join } from 'node:path'
import { seededRandom, systemClock, type Clock } from '../../../src/base/index.ts'
import type { ModelStore } from '../../../src/storage/index.ts'
import { contentOf, fileStore, sampleOf, temporaryDirectory, type Sample } from '../../compliance/store-fixtures.ts'

/** A running store in a directory that goes away with it: one for each test of the suite that calls onDisk(). */
export class OnDisk {
  #directory: (AsyncDisposable & { path: string }) | undefined
  #store: ModelStore | undefined

  /** Another one after reopen(). */
  get store (): ModelStore { return this.#store ?? assert.fail('no test runs') }
  get directory (): string { return this.#directory?.path ?? assert.fail('no test runs') }

  readonly at = (...names: string[]): string => join(this.directory, ...names)

  readonly reopen = async (between: () => Promise<void> = async () => undefined, clock: Clock = systemClock): Promise<void> => {
    await this.store.stop()
    await between()
    this.#store = fileStore(this.directory, { clock })
    await this.#store.start()
  }

  async start (): Promise<void> {
    this.#directory = await temporaryDirectory()
    this.#store = fileStore(this.directory)
    await this.#store.start()
  }

  async stop (): Promise<void> {
    await this.store.stop()
    await this.#directory?.[Symbol.asyncDispose]()
  }
}

export function onDisk (): OnDisk {
  const disk = new OnDisk()
  beforeEach(async () => { await disk.start() })
  afterEach(async () => { await disk.stop() })
  return disk
}

export function twoFiles (seed: number): Sample {
  const random = seededRandom(seed)
  return sampleOf([{ path: 'config.json', content: contentOf(random, 300), sizes: [300] }, { path: 'weights/a.bin', content: contentOf(random, 50_000), sizes: [20_000, 13_000, 17_000] }])
}

export function contentAt (sample: Sample, position = 0): Buffer {
  return sample.files[position]?.content ?? Buffer.alloc(0)
}
