/**
 * `npm run sim`: swarms of the real Replicator over a simulated clock, network and disk (docs/REPLICATION.md).
 * One seed, many (`--seeds`), or with a planted bug (`--plant NAME|all`), which has to be found.
 */
import { parseArgs } from 'node:util'
import { plants } from './planted.ts'
import { FAULTS, type FaultName, type SimOptions } from './types.ts'
import { hunt, runMany } from './report.ts'

const USAGE = `npm run sim -- [--seed S] [--seeds N] [--nodes N] [--hours H] [--faults a,b,...|all|none] [--plant NAME|all] [--trace]

faults  ${FAULTS.join(', ')}
plants  ${plants.map(plant => plant.name).join(', ')}`

function usageError (message: string): never {
  console.error(`${message}\n\n${USAGE}`)
  process.exit(2)
}

function parse (): { options: SimOptions, seeds: number | undefined, trace: boolean } {
  let values
  try {
    ({ values } = parseArgs({
      options: {
        seed: { type: 'string', default: '1' },
        seeds: { type: 'string' },
        nodes: { type: 'string', default: '14' },
        hours: { type: 'string' },
        faults: { type: 'string' },
        plant: { type: 'string' },
        trace: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false }
      }
    }))
  } catch (error) {
    return usageError(error instanceof Error ? error.message : String(error))
  }
  if (values.help) {
    console.log(USAGE)
    process.exit(0)
  }
  const number = (name: string, text: string, from: number, to: number): number => {
    const value = Number(text)
    if (!(value >= from && value <= to)) usageError(`--${name} takes a number from ${from} to ${to}, not ${text}`)
    return value
  }
  if (values.plant !== undefined && values.plant !== 'all' && !plants.some(plant => plant.name === values.plant)) usageError(`no planted bug is called ${values.plant}`)
  return {
    options: {
      seed: Math.floor(number('seed', values.seed, 0, 2 ** 31)),
      nodes: Math.floor(number('nodes', values.nodes, 3, 200)),
      hours: number('hours', values.hours ?? (values.plant === undefined ? '4' : '3'), 1, 10_000),
      // A planted bug brings what provokes it.
      faults: parseFaults(values.faults) ?? plants.find(plant => plant.name === values.plant)?.faults,
      plant: values.plant
    },
    seeds: values.seeds === undefined ? undefined : Math.floor(number('seeds', values.seeds, 1, 1e7)),
    trace: values.trace
  }
}

function parseFaults (text: string | undefined): FaultName[] | undefined {
  if (text === undefined) return undefined
  if (text === 'all') return [...FAULTS]
  if (text === 'none' || text === '') return []
  return text.split(',').map(name => FAULTS.find(fault => fault === name.trim()) ?? usageError(`no fault is called ${name}`))
}

const { options, seeds, trace } = parse()
process.exitCode = options.plant === 'all' ? hunt(options, seeds ?? 2_000) : runMany(options, seeds ?? 1, trace)
