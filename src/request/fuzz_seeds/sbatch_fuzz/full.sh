#!/bin/bash -l
#SBATCH --job-name=train -p demo   # where it runs
#SBATCH -N 2-4 --ntasks-per-node=4 --gpus-per-node h100:8
##SBATCH --nonsense
#SBATCH -t 1-12:30:00 -A "team-a" -q high
#SBATCH -w 'node[1-3,07]',gpu5 -x r1h2 -C "LOCAL&(leaf1|leaf2)"

#SBATCH -d afterok:12:13,after:job-14+5 -a 0-15:2%4
#SBATCH -o out-%A_%a.txt -e err-%j.txt --switches=1@2:00 --segment=2
#SBATCH --exclusive --no-requeue --signal=B:USR1@120 --reservation=r1 --test-only
#SBATCH --begin=now+1hour --deadline 2027-12-31T08:00 --nice --mem=4G
srun hostname
#SBATCH --too-late
