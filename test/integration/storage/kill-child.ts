import { writeSync } from 'node:fs'
import { randomInt, seededRandom, shuffle } from '../../../src/base/index.ts'
import { fileOf, fileStore, importAll, writeBlock } from '../../compliance/store-fixtures.ts'
import { killModels } from './kill-models.ts'

/**
 * Works on a store until it is killed: loads models, removes some, imports files. Says on stdout what the store has
 * told, each line written before the next thing happens.
 */
const [directory = '', modelSeed = '1', roundSeed = '1'] = process.argv.slice(2)
const random = seededRandom(Number(roundSeed))
const models = killModels(Number(modelSeed))
const say = (line: string): void => { writeSync(1, `${line}\n`) }

const store = fileStore(directory, { settings: { syncBytes: 200_000, syncIntervalMs: 3 } })
await store.start()
store.events.on('blocks:present', ({ file, blocks }) => { for (const block of blocks) say(`present ${file.key} ${block}`) })
store.events.on('model:removed', ({ cid }) => { say(`removed ${cid}`) })
say('ready')

for (;;) {
  const sample = models[randomInt(random, models.length)]
  if (sample === undefined) throw new Error('no models')
  const what = random.next()
  if (what < 0.15 && store.model(sample.cid) !== undefined) {
    say(`removing ${sample.cid}`)
    await store.removeModel(sample.cid)
  } else if (what < 0.3) {
    await Promise.all(sample.files.filter(() => random.next() < 0.7).map(async file => await importAll(store, file)))
  } else {
    await store.putModel(sample.model)
    const work = sample.files.flatMap((given, position) => [...given.index.value.blocks].map((_, block) => ({ position, block })))
    shuffle(random, work)
    const count = randomInt(random, work.length + 1)
    await Promise.all([0, 1, 2].map(async lane => {
      for (const { position, block } of work.slice(0, count).filter((_, i) => i % 3 === lane)) {
        await writeBlock(store, fileOf(store, sample, position), sample.files[position]?.content ?? Buffer.alloc(0), block)
      }
    }))
  }
}
